"""Options of the contrast, its course along a training, the verdict and its calibration."""

from dataclasses import asdict, dataclass, field

from sae_reasoning.config.checks import one_of, positive, require
from sae_reasoning.config.organisms import FAMILIES
from sae_reasoning.config.sampling import SamplingConfig

_VECTORS = ("mean-difference", "gradient", "ascent", "onset-predictors")


@dataclass
class ContrastConfig(SamplingConfig):
    """When and how: onset probability, execution accuracy, steering vectors, pass@k, weights.

    Attributes:
        behaviours: What is contrasted; empty for all.
        report_problems: Problems of the report split, at most.
        select_problems: Problems of the select split, at most; vectors and openings are chosen on
            them.
        samples: Rollouts a problem and model, with the thinking prefix forced.
        onset_places: Places of the report split at which both models continue a text where openings
            can't all be listed, at most: those where a writer started a behaviour, and others.
        onset_samples: Continuations of each such place by each model, a sentence long.
        report_starts: Places at which a behaviour is started for the models, at most.
        select_starts: The same on the select split.
        best_of: Samples of the base, of which the best counts.
        vectors: Kinds of steering vectors that are tried in the base: mean-difference, gradient,
            ascent and onset-predictors (which needs `rank`).
        onset_predictors: Latents averaged to a vector of onset predictors.
        doses: Norms tried, in multiples of the mean norm of the residual there.
        controls: Random directions, and permutations of the labels, that a vector is compared with.
        pass_problems: Problems of pass@k.
        pass_samples: Rollouts a problem of pass@k.
        corrupted_traces: Chains of thought that are corrupted.
        execution_value: When executions are valued by letting the RL model complete: `auto` where
            no program with a chance level judges them and answers leave headroom (`traces`), also
            `always`, or `never`.
        value_candidates: Places of each split at which pilots tell whether the answer rests on a
            behaviour, of each behaviour at most; one a rollout.
        value_starts: Of those, places of the report split with headroom that are valued, of a
            behaviour at most; pilots end once there are so many.
        value_select_starts: The same on the select split, by which openings and vectors are
            chosen.
        value_openings: Openings of a behaviour of which the best is chosen so, the commonest.
        pilot_samples: Completions of a pilot: of a control's sentence at a place, and of the RL
            model's own way on.
        headroom: Share of right answers by which, in a pilot, the second must surpass the first:
            so much rests on the behaviour there.
        completions: The RL model's completions, each execution's value.
        select_completions: The same on the select split.
        own_tries: Sentences that each model writes at a start, among which are its own executions.
        own_share: Of those, the share that must be the behaviour; a model that makes it less often
            has an opening written for it, drawn from its own distribution.
        behaviour_tokens: Tokens after which a started behaviour is truncated.
        token_budget: Tokens of one forward pass.
        seed: Of places, draws and sampling noise.
    """

    behaviours: list[str] = field(default_factory=list)
    report_problems: int = 300
    select_problems: int = 100
    samples: int = 2
    onset_places: int = 600
    onset_samples: int = 8
    report_starts: int = 250
    select_starts: int = 60
    best_of: int = 2
    vectors: list[str] = field(default_factory=lambda: list(_VECTORS[:3]))
    onset_predictors: int = 3
    doses: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    controls: int = 3
    pass_problems: int = 40
    pass_samples: int = 32
    corrupted_traces: int = 200
    execution_value: str = "auto"
    value_candidates: int = 600
    value_starts: int = 120
    value_select_starts: int = 30
    value_openings: int = 6
    pilot_samples: int = 2
    headroom: float = 0.5
    completions: int = 4
    select_completions: int = 2
    own_tries: int = 4
    own_share: float = 0.1
    max_new_tokens: int = 320
    behaviour_tokens: int = 30
    batch_size: int = 512
    token_budget: int = 4096

    def __post_init__(self) -> None:
        prefix = "contrast"
        positive(self, prefix, "report_problems", "select_problems", "samples", "report_starts")
        positive(self, prefix, "onset_places", "onset_samples")
        positive(self, prefix, "select_starts", "best_of", "onset_predictors", "controls")
        positive(self, prefix, "pass_problems", "pass_samples", "corrupted_traces")
        positive(self, prefix, "behaviour_tokens", "token_budget", "value_starts")
        positive(self, prefix, "value_select_starts", "value_openings", "completions")
        positive(self, prefix, "value_candidates", "pilot_samples", "headroom")
        positive(self, prefix, "select_completions", "own_tries", "own_share")
        one_of(f"{prefix}.execution_value", self.execution_value, ("auto", "always", "never"))
        require(
            self.completions > 1,
            f"{prefix}.completions={self.completions} can't be halved, and one half chooses the "
            "best try that the other values; try 4",
        )
        require(
            self.own_share <= 1,
            f"{prefix}.own_share={self.own_share} is a share, at most 1; try 0.1",
        )
        require(
            self.headroom <= 1,
            f"{prefix}.headroom={self.headroom} is a share of right answers, at most 1; try 0.5",
        )
        self.check_sampling(prefix)
        unknown = [kind for kind in self.vectors if kind not in _VECTORS]
        require(
            not unknown and bool(self.vectors),
            f"contrast.vectors={self.vectors} must be one or more of {', '.join(_VECTORS)}",
        )
        require(
            bool(self.doses) and min(self.doses) > 0,
            f"contrast.doses={self.doses} must be positive numbers; try [0.5,1,2]",
        )


@dataclass
class CourseConfig:
    """What changed when, along a training; places and starts are the contrast's.

    Attributes:
        checkpoints: Glob of model folders along the training, whose names end in the step.
        last_step: The RL model's step; the base's is 0.
    """

    checkpoints: str = ""
    last_step: int = 0


@dataclass
class ReportConfig:
    """Thresholds of the verdict (sae_reasoning/report/verdict.py says how they decide), and pages.

    Attributes:
        rate_ratio: A rate is up above this factor, level within it and its inverse.
        rate_difference: Starts a trace, or an opportunity, below which a difference is none.
        margin: Chance-corrected accuracy by which the base may be behind the RL model and still
            have the behaviour. 0.3 is 0.15 of execution accuracy at a chance of one half.
        able: Chance-corrected accuracy (0 is chance, 1 is always right) above which a model
            executes a behaviour.
        unable: Chance-corrected accuracy below which it can't; in between it can in part.
        cosmetic_margin: Share of right answers by which a behaviour's own content may surpass other
            content, and none of the behaviour, and still make no difference.
        min_displaced: Starts with a displaced sentence, below which executions are valued against
            foreign ones.
        min_gap: Share of right answers that rests on a behaviour, below which a page says that
            little does; where the upper bound is below, the verdict is inconclusive.
        min_opportunities: Opportunities of both models, below which no rate is judged.
        min_starts: Starts, below which no execution is judged.
        min_problems: Problems that those must come from.
        reviews: Files of reviewers' labels that the page of latents exports, to be shown.
        neuronpedia: Whether shortlisted latents are exported too, in Neuronpedia's shape.
    """

    rate_ratio: float = 1.25
    rate_difference: float = 0.01
    margin: float = 0.3
    able: float = 0.4
    unable: float = 0.2
    cosmetic_margin: float = 0.05
    min_displaced: int = 50
    min_gap: float = 0.2
    min_opportunities: int = 100
    min_starts: int = 50
    min_problems: int = 30
    reviews: list[str] = field(default_factory=list)
    neuronpedia: bool = False

    @property
    def margins(self) -> dict[str, float]:
        """The thresholds of the verdict, without the options of the pages."""
        own = asdict(self)
        del own["reviews"], own["neuronpedia"]
        return own

    def __post_init__(self) -> None:
        prefix = "report"
        positive(self, prefix, "rate_difference", "margin", "min_opportunities")
        positive(self, prefix, "min_starts", "min_problems", "min_displaced")
        positive(self, prefix, "cosmetic_margin", "min_gap")
        require(
            self.margin < 1,
            f"{prefix}.margin={self.margin} is a share, below 1; try 0.3",
        )
        require(
            self.rate_ratio > 1,
            f"{prefix}.rate_ratio={self.rate_ratio} must be above 1; try 1.25",
        )
        require(
            0 < self.unable < self.able < 1,
            f"{prefix}.unable={self.unable} and {prefix}.able={self.able} must be in order between "
            "0 and 1; try 0.2 and 0.4",
        )


@dataclass
class CalibrateConfig:
    """The verdict on models whose answer is known; runs take `experiment`'s options.

    Attributes:
        seeds: Of the organisms; those that margins were fitted on don't belong here.
        families: Of the organisms.
        pairs: Names of pairs (see sae_reasoning/organisms/cells.py).
        bootstrap: Resamples of pairs.
        output: Where the result is written.
        seed: Of the resamples.
    """

    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    families: list[str] = field(default_factory=lambda: list(FAMILIES))
    pairs: list[str] = field(
        default_factory=lambda: [
            "deployed",
            "created",
            "null",
            "deployed_sft",
            "reworded",
            "lacking",
        ]
    )
    bootstrap: int = 2000
    output: str = "data/calibration.json"
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "calibrate", "bootstrap")
        for name in ("seeds", "families", "pairs"):
            given = getattr(self, name)
            require(bool(given), f"calibrate.{name}=[] names none; give at least one")
            require(
                len(set(given)) == len(given),
                f"calibrate.{name}={given} names one twice, which would be counted twice; "
                "name each once",
            )
        for family in self.families:
            one_of("calibrate.families", family, FAMILIES)
        require(
            min(self.seeds) > 0,
            f"calibrate.seeds={self.seeds} must be from 1 on; on seed 0 margins were fitted, and a "
            "verdict isn't held against what it was fitted on; use others",
        )
