"""Options of the elicitation table."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import positive, require
from sae_reasoning.config.sampling import SamplingConfig

INTERVENTIONS = ("prompt", "tools", "critiques", "gate", "biases", "best-of", "hybrid")


@dataclass
class ElicitConfig(SamplingConfig):
    """Cheap interventions that may recover what RL gained, on one table with their cost.

    Attributes:
        interventions: What is tried, beside the base and the RL model: `prompt` (made to think),
            `tools` (behaviours, or their openings), `critiques` (of one problem), `gate` (a control
            token), `biases` (a vector a layer), `best-of` (samples and a grader), `hybrid` (a row
            of the stage of that name, where it's made).
        behaviours: Whose openings are written for the base, and that are shown; empty for all.
        think_instruction: Asks for a chain of thought; empty for the task's own. Organisms read no
            instructions, so their task has none.
        tools_instruction: Names and rules of cognitive tools; empty for the task's own: the
            behaviours with their `meanings`, or openings of them where no instructions are read.
        report_problems: Problems of the report split, at most.
        select_problems: Problems of the select split, at most.
        choose_problems: Those of them, the last, on which a training's length and rate are chosen;
            trainings see the others.
        samples: Rollouts a problem and condition.
        attempts: Rollouts of the base on the problem of the critiques.
        attempt_problems: Problems, at most, that are looked at for one whose attempts make
            critiques: in natural text, some right and some wrong.
        critique_rank: Rank of the LoRA adapter that critiques train; 0 trains all weights.
        critique_rates: Learning rates of the critiques, of which one is chosen; as of each
            control.
        critique_steps: Steps of the critiques, of which one number is chosen; as of each control.
        critique_batch: Examples a step of the critiques.
        rl_prompts: Problems a step of the gate and the biases.
        rl_samples: Rollouts a problem of the gate and the biases.
        gate_steps: Steps of the gate.
        gate_rates: Learning rates of the gate, of which one is chosen.
        bias_steps: Steps of the biases.
        bias_rates: Learning rates of the biases, of which one is chosen.
        best_problems: Problems of best-of-k, the first of those reported on, at most.
        best_of: Numbers of samples of which the best counts; the largest is drawn.
        hybrid_budget: Share of tokens steered, up to which a row of the hybrid is taken.
        seed: Of sampling noise, trainings and controls.
    """

    interventions: list[str] = field(default_factory=lambda: list(INTERVENTIONS))
    behaviours: list[str] = field(default_factory=list)
    think_instruction: str = ""
    tools_instruction: str = ""
    report_problems: int = 300
    select_problems: int = 300
    choose_problems: int = 100
    samples: int = 2
    attempts: int = 64
    attempt_problems: int = 20
    critique_rank: int = 0
    critique_rates: list[float] = field(default_factory=lambda: [3e-4, 1e-3])
    critique_steps: list[int] = field(default_factory=lambda: [10, 25, 50])
    critique_batch: int = 8
    rl_prompts: int = 16
    rl_samples: int = 8
    gate_steps: int = 30
    gate_rates: list[float] = field(default_factory=lambda: [3e-3, 1e-2, 3e-2])
    bias_steps: int = 30
    bias_rates: list[float] = field(default_factory=lambda: [1e-2, 3e-2, 1e-1])
    best_problems: int = 100
    best_of: list[int] = field(default_factory=lambda: [1, 4, 16, 64])
    hybrid_budget: float = 0.15

    def __post_init__(self) -> None:
        prefix = "elicit"
        unknown = [name for name in self.interventions if name not in INTERVENTIONS]
        require(
            not unknown and bool(self.interventions),
            f"{prefix}.interventions={self.interventions} must be one or more of "
            f"{', '.join(INTERVENTIONS)}",
        )
        positive(self, prefix, "report_problems", "select_problems", "choose_problems", "samples")
        positive(self, prefix, "attempts", "attempt_problems", "critique_batch", "gate_steps")
        positive(self, prefix, "bias_steps", "best_problems")
        self.check_sampling(prefix)
        require(
            self.critique_rank >= 0,
            f"{prefix}.critique_rank={self.critique_rank} must be 0 or more; try 16",
        )
        for name in ("rl_prompts", "rl_samples"):
            value = getattr(self, name)
            require(value > 1, f"{prefix}.{name}={value} leaves nothing to compare; raise it to 2")
        for name, example in (
            ("critique_rates", "[0.001]"),
            ("critique_steps", "[50]"),
            ("gate_rates", "[0.01]"),
            ("bias_rates", "[0.03]"),
            ("best_of", "[1,16]"),
        ):
            values = getattr(self, name)
            require(
                bool(values) and min(values) > 0,
                f"{prefix}.{name}={values} must be positive numbers; try {example}",
            )
        require(
            0 < self.hybrid_budget <= 1,
            f"{prefix}.hybrid_budget={self.hybrid_budget} must be a share above 0; try 0.15",
        )
