"""Options of the task: what kind of text problems and responses are."""

from dataclasses import dataclass

from sae_reasoning.config.checks import one_of, require


@dataclass
class TaskConfig:
    """What is known of the text, and how problems of the search world are drawn.

    Attributes:
        kind: `search`, whose grammar and programs know every behaviour; `text`, whose behaviours
            are told by cue words; or `auto`, which is search where `traces.source=search`.
        min_edges: Shortest right path of a drawn problem of the search world, in edges.
        max_edges: Longest right path; the organisms were trained on 3 to 5.
        places: Names of places in drawn problems: `known`, or `new` ones that no organism met.
        remarks: Harmless sentences before drawn problems: `known`, or `new` ones.
    """

    kind: str = "auto"
    min_edges: int = 3
    max_edges: int = 5
    places: str = "known"
    remarks: str = "known"

    def __post_init__(self) -> None:
        one_of("task.kind", self.kind, ("auto", "search", "text"))
        one_of("task.places", self.places, ("known", "new"))
        one_of("task.remarks", self.remarks, ("known", "new"))
        require(
            1 <= self.min_edges <= self.max_edges <= 8,
            f"task.min_edges={self.min_edges} and task.max_edges={self.max_edges} must be in "
            "order between 1 and 8; try 3 and 5",
        )
