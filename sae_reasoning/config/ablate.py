"""Options of the edits."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import one_of, other_run, positive, require
from sae_reasoning.config.sampling import SamplingConfig


@dataclass
class AblateConfig(SamplingConfig):
    """Edits of the shortlist, with controls, on both models.

    The RL model's latents are ablated (are they needed?), the base's clamped (do they suffice?).
    A model that stands alone is edited as an RL model is; `both` clamps its latents too. Behaviours
    of new text are labelled by the task's annotator, which with `traces.annotator=llm` asks a
    language model about every rollout. A base that opens its chain of thought itself is made to, as
    hardly a rollout would have an opportunity otherwise.

    Attributes:
        behaviours: Behaviours whose latents are edited; empty for all that are shortlisted.
        shortlist: `onset_predictors` or `span_detectors`; or `separators`, by onset AUROC on
            the select split.
        matches_of: Another run, as `<experiment>/<pair>` below `runs`: its latents' matches
            here, as its `match` found them, are edited, with this run's own beside them.
        reviews: Files of reviewers' calls, as the page of latents exports them: only latents that
            somebody called real, and nobody anything else, are edited.
        where: `opportunities` of the behaviour (where it could start), or `all` generated tokens.
        num_latents: Latents ablated together, the best first, over all layers: the main set.
        clamp_latents: Latents clamped together, likewise.
        clamp_multiple: Clamp value, in multiples of the latent's maximum on the select split.
        set_sizes: Sizes of the growing sets, ablated and clamped.
        doses: Clamp values of the main set, likewise; five or more make a curve.
        scales: Factors by which the main set is multiplied too, in both models.
        additions: Multiples of their maximum that are added to the main set too, in both models.
        singles: This many of a behaviour's best latents are edited by themselves too.
        both: Whether each model undergoes the other's edit too.
        everywhere: Whether the main edits are made at all tokens too, where they aren't already.
        other_reader: Whether the main edit is made of the latents that the other reader found too.
        recovery: Whether the span of the main set is taken from the SAE's error, and from the whole
            residual, too.
        controls: Matched-latent sets, random directions and the like, each this many draws; an
            effect is held against one more draw, so with fewer than three hardly any stands.
        permutations: Draws of matches of the other run's other latents, beside `matches_of`.
        split: Whose problems: `report`; or `select`, to choose doses and sizes on.
        num_problems: Problems generated on.
        samples: Rollouts a problem and condition.
        base_samples: Rollouts a problem and condition of the base.
        batch_size: Rows at once; rows of one batch may carry different edits.
        seed: Of controls and sampling noise.
    """

    behaviours: list[str] = field(default_factory=list)
    shortlist: str = "onset_predictors"
    matches_of: str = ""
    reviews: list[str] = field(default_factory=list)
    where: str = "opportunities"
    num_latents: int = 5
    clamp_latents: int = 5
    clamp_multiple: float = 4.0
    set_sizes: list[int] = field(default_factory=lambda: [5, 20])
    doses: list[float] = field(default_factory=lambda: [1.0, 4.0, 8.0])
    scales: list[float] = field(default_factory=list)
    additions: list[float] = field(default_factory=list)
    singles: int = 0
    both: bool = False
    everywhere: bool = False
    other_reader: bool = False
    recovery: bool = False
    controls: int = 3
    permutations: int = 5
    split: str = "report"
    num_problems: int = 60
    samples: int = 1
    base_samples: int = 1

    def __post_init__(self) -> None:
        prefix = "ablate"
        one_of("ablate.split", self.split, ("report", "select"))
        one_of(
            "ablate.shortlist", self.shortlist, ("onset_predictors", "span_detectors", "separators")
        )
        one_of("ablate.where", self.where, ("opportunities", "all"))
        positive(self, prefix, "num_latents", "clamp_latents", "clamp_multiple", "controls")
        positive(self, prefix, "num_problems", "samples", "permutations")
        positive(self, prefix, "base_samples")
        self.check_sampling(prefix)
        for name, example in (("set_sizes", "[1,2,5,10,20]"), ("doses", "[0.5,1,2,4,8]")):
            values = getattr(self, name)
            require(
                all(value > 0 for value in values),
                f"ablate.{name}={values} must be above 0, or empty for none; try {example}",
            )
        require(
            self.singles >= 0,
            f"ablate.singles={self.singles} is less than none; set 0, or 5 for the five best",
        )
        other_run("ablate.matches_of", self.matches_of)
        require(
            not self.reviews or self.shortlist != "separators",
            "ablate.reviews is about shortlisted latents, and ablate.shortlist=separators takes "
            "others; set onset_predictors or span_detectors",
        )

    def depends_on(self, option: str) -> bool:
        """Whether edits can differ with an option, as the others are set."""
        return True
