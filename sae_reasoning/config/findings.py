"""Options of the pages of findings."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import require


@dataclass
class FindingsConfig:
    """Tables of the pages, written from the files of the runs that each table names.

    Attributes:
        pages: Markdown files, or folders of them.
    """

    pages: list[str] = field(default_factory=lambda: ["README.md", "data/findings"])

    def __post_init__(self) -> None:
        require(
            bool(self.pages),
            "findings.pages=[] is empty; name a page, or leave the option out",
        )
