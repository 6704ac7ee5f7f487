"""Options of the hybrid: a base that is steered, token by token, at times that a policy chooses."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import positive, require
from sae_reasoning.config.sampling import SamplingConfig

_VECTORS = ("sae", "mean-difference", "trained")


@dataclass
class HybridConfig(SamplingConfig):
    """The base writes, the RL model reads along, and a policy decides at every token.

    Attributes:
        behaviours: That the base may be steered to, beside entering its response; empty for all.
        vectors: Kinds of steering vectors: `sae` (decoder rows of onset predictors),
            `mean-difference`, `trained`.
        budgets: Shares of tokens, at most, that are steered.
        num_problems: Problems of the report split.
        select_problems: Problems of the select split on which doses are chosen by accuracy.
        select_traces: The RL model's traces of the select split that vectors, readouts and
            thresholds come from.
        samples: Rollouts a problem and policy.
        end_samples: Rollouts a problem of the base and the RL model unsteered, between which the
            gap lies.
        onset_predictors: Latents that are averaged to a vector of `sae`.
        doses: Sizes tried for each vector, in multiples of the mean norm of the residual.
        multiples: Sizes tried for all of a kind's vectors together, in multiples of those chosen.
        places: Onsets of a behaviour that train vectors, and as many that choose doses.
        horizon: Tokens after an onset whose probability a vector shall raise.
        steps: Of a vector's training.
        lr: Of Adam, in multiples of the residual's norm.
        draws: Random directions, in the place of each vector.
        token_budget: Tokens of one forward pass.
        seed: Of places, draws and sampling noise.
    """

    behaviours: list[str] = field(default_factory=list)
    vectors: list[str] = field(default_factory=lambda: list(_VECTORS))
    budgets: list[float] = field(default_factory=lambda: [0.01, 0.03, 0.05, 0.15])
    num_problems: int = 100
    select_problems: int = 50
    select_traces: int = 300
    samples: int = 1
    end_samples: int = 4
    onset_predictors: int = 3
    doses: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0, 4.0])
    multiples: list[float] = field(default_factory=lambda: [0.7, 1.0, 1.5])
    places: int = 64
    horizon: int = 8
    steps: int = 50
    lr: float = 0.05
    draws: int = 2
    batch_size: int = 128
    token_budget: int = 4096

    def __post_init__(self) -> None:
        prefix = "hybrid"
        positive(self, prefix, "num_problems", "select_problems", "select_traces", "samples")
        positive(
            self, prefix, "end_samples", "onset_predictors", "places", "horizon", "steps", "lr"
        )
        positive(self, prefix, "draws", "token_budget")
        self.check_sampling(prefix)
        unknown = [kind for kind in self.vectors if kind not in _VECTORS]
        require(
            not unknown and bool(self.vectors),
            f"hybrid.vectors={self.vectors} must be one or more of {', '.join(_VECTORS)}",
        )
        require(
            bool(self.budgets) and min(self.budgets) > 0 and max(self.budgets) <= 1,
            f"hybrid.budgets={self.budgets} must be shares above 0, at most 1; try [0.05,0.15]",
        )
        for name in ("doses", "multiples"):
            values = getattr(self, name)
            require(
                bool(values) and min(values) > 0,
                f"hybrid.{name}={values} must be positive numbers; try [0.5,1,2]",
            )
