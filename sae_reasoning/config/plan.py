"""Options of the estimate of what a run will cost."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import positive, require


@dataclass
class PlanConfig:
    """What `plan` assumes where it can't know; nothing else reads it.

    Attributes:
        prompt_tokens: Mean tokens of a prompt, where no traces or tokenizer tell.
        base_tokens: Mean tokens of a response of the base, where neither traces nor the table of
            measured models tell; no more than traces.max_new_tokens.
        rl_tokens: Of the RL model, likewise.
        spread: Standard deviation of a response's length in multiples of its mean, where no traces
            tell: most places are in long ones. 0.5 for the shipped models, 0.4 to 0.6 for the
            annotated traces of 2506.18167.
        parameters: Parameters of a model that is neither here nor in the table; 0 for none.
        d_model: Its width.
        num_layers: Its decoder blocks.
        utilisation: Share of a card's matrix peak at which models read.
        sae_utilisation: Share of the same at which SAEs train and encode, in float32.
        bandwidth: Share of a card's memory bandwidth at which models write.
        cards: Names of cards, of those in the table.
    """

    prompt_tokens: int = 200
    base_tokens: int = 700
    rl_tokens: int = 1500
    spread: float = 0.5
    parameters: float = 0.0
    d_model: int = 0
    num_layers: int = 0
    utilisation: float = 0.4
    sae_utilisation: float = 0.1
    bandwidth: float = 0.3
    cards: list[str] = field(default_factory=lambda: ["A100", "H100"])

    def __post_init__(self) -> None:
        positive(self, "plan", "prompt_tokens", "base_tokens", "rl_tokens")
        require(self.spread >= 0, f"plan.spread={self.spread} must not be negative; try 0.5")
        for name in ("utilisation", "sae_utilisation", "bandwidth"):
            value = getattr(self, name)
            require(0 < value <= 1, f"plan.{name}={value} must be a share; try 0.3")
