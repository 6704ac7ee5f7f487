"""Options of the traces: which problems, who answers them, who labels behaviours."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from sae_reasoning.config.checks import one_of, positive, require

DATASET_NAMES = ("gsm8k", "math500", "aime", "countdown")
"""Datasets of problems that have a short name."""


COUNTDOWN3 = "countdown3"
"""Countdown with three small numbers, which this package draws and grades."""

OFFSET_UNITS = ("codepoints", "utf16", "bytes")
"""What offsets of characters may count."""


def require_file(option: str, path: str) -> None:
    """Refuse what names no file, with the source that it may be a misspelling of.

    Raises:
        ConfigError: There is no such file.
    """
    known = ("search", COUNTDOWN3, "gym", *DATASET_NAMES)
    near = difflib.get_close_matches(path.partition(":")[0], known, n=1)
    meant = f"did you mean {near[0]}{':<task>' if near == ['gym'] else ''}? Or " if near else ""
    require(
        Path(path).is_file(),
        f"{option}={path} is no file; {meant}name JSON, JSON lines or Parquet "
        f"(conf/README.md, “Problems”), or take one of search, {COUNTDOWN3}, gym:<task>, "
        f"{', '.join(DATASET_NAMES)}",
    )


@dataclass
class TracesConfig:
    """Rollouts of both models on the same problems, or traces brought along.

    Attributes:
        source: `search` draws problems of the organisms' world, `countdown3` Countdown with three
            numbers and a hint; `gym:<task>,<task>` has reasoning-gym make them; `gsm8k`, `math500`,
            `aime` and `countdown` are datasets, from the hub or, as `gsm8k:<folder>`, from where
            `save_to_disk` put them. Anything else is a file: JSON, JSON lines or Parquet,
            recognised by content, of annotated traces to import (see conf/README.md, "traces that
            you have"), or of questions with answers.
        base_source: File of the base's traces, where they stand apart; those of `source` are the RL
            model's then.
        offsets: What the offsets of imported spans count: `codepoints` as Python does, units of
            `utf16` as JavaScript and so Doccano do, or `bytes` of UTF-8. Where a tool quotes what
            it labels, as Label Studio does, the quotes tell.
        writer: Who wrote imported traces that don't say: `base`, `rl`, or none, which refuses them
            where there are two models.
        annotator: Who labels behaviours, here and in whatever later stages write: `grammar` (the
            organisms' world's own), `imported` takes them as they come, `cues` looks for words,
            `llm` asks a model, `fitted` is a classifier of sentences fitted on `fitted_on`; `auto`
            is the first or second where the source has it, else cues. Later text of `imported` is
            labelled by a classifier fitted on the imported labels, where they suffice, else by
            cues.
        second_annotator: Labels the same traces, to be compared (Cohen's kappa); none for nobody.
        fitted_on: File of labelled traces, in any form that `source` takes, for `fitted`.
        fitted_min_kappa: Least agreement of such a classifier with the labels it was fitted on, by
            sentence, on problems held out of the fit; under it, it is refused. Below 0.2 agreement
            is no more than slight (Landis and Koch 1977), and cue words do nearly as well.
        fitted_min_problems: Fewest problems with labelled traces that one is fitted on.
        annotator_endpoint: URL of the OpenAI-compatible server of `llm`; the key is read from
            OPENAI_API_KEY.
        annotator_model: Model to ask there.
        annotator_concurrency: Requests under way at once.
        annotator_attempts: Times a trace is asked about while answers can't be read.
        annotator_failures: Largest share of traces that may be left out as their answers can't be.
        cues: Words of each behaviour, for `cues` (files of conf/behaviours).
        meanings: What each behaviour is, for `llm`.
        words_for: Text that cues and meanings are written for: `search`, `text`, or empty for any.
            Those of the search world are refused for other text.
        headroom_low: Accuracy up to which a model is said to solve nothing. Where both do, or both
            solve everything, no behaviour can matter to the answer, and that is told at once.
        headroom_high: Accuracy from which a model is said to solve everything.
        jitter: Tokens by which spans' boundaries are moved at most, at random: 0 but for seeing
            what hangs on them.
        cut_to_context: Whether imported traces longer than a model's context are cut to it, and
            count as truncated; otherwise they're refused.
        dataset_split: Part of a dataset; empty for the one that it's usually tested on.
        instruction: Put behind every question in words, after an empty line.
        engine: What writes: `transformers`, or `vllm` where it's installed. The latter draws other
            samples, and knows no edits.
        num_problems: Problems drawn.
        base_samples: Rollouts a problem of the base; more than of the other, as its behaviours are
            rare.
        rl_samples: Rollouts a problem of the RL model.
        report_share: Share of problems held for the report split.
        max_new_tokens: Tokens after which a rollout is cut.
        temperature: Of sampling.
        batch_size: Rollouts at once.
        seed: Of problems, split and sampling noise.
    """

    source: str = "search"
    base_source: str = ""
    offsets: str = "codepoints"
    writer: str = ""
    annotator: str = "auto"
    second_annotator: str = ""
    fitted_on: str = ""
    fitted_min_kappa: float = 0.2
    fitted_min_problems: int = 20
    annotator_endpoint: str = ""
    annotator_model: str = ""
    annotator_concurrency: int = 8
    annotator_attempts: int = 3
    annotator_failures: float = 0.05
    cues: dict[str, list[str]] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)
    words_for: str = ""
    headroom_low: float = 0.05
    headroom_high: float = 0.95
    jitter: int = 0
    cut_to_context: bool = False
    dataset_split: str = ""
    instruction: str = ""
    engine: str = "transformers"
    num_problems: int = 600
    base_samples: int = 8
    rl_samples: int = 2
    report_share: float = 0.5
    max_new_tokens: int = 280
    temperature: float = 1.0
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "traces", "num_problems", "base_samples", "rl_samples", "max_new_tokens")
        positive(self, "traces", "temperature", "batch_size")
        one_of("traces.offsets", self.offsets, OFFSET_UNITS)
        one_of("traces.writer", self.writer, ("", "base", "rl"))
        one_of("traces.engine", self.engine, ("transformers", "vllm"))
        self._check_source()
        self._check_annotators()
        require(
            0 < self.report_share < 1,
            f"traces.report_share={self.report_share} must lie between 0 and 1; try 0.5",
        )

    @property
    def kind(self) -> str:
        """What `source` names: `search`, `countdown3`, `gym`, `dataset` or `file`."""
        head, _, rest = self.source.partition(":")
        if self.source in ("search", COUNTDOWN3):
            return self.source
        if head == "gym" and rest:
            return "gym"
        return "dataset" if head in DATASET_NAMES else "file"

    def require_source(self) -> None:
        """Refuse a source that isn't there; nothing is fetched or read for it.

        Raises:
            ConfigError: It's no file, or no folder of a dataset.
        """
        name, _, folder = self.source.partition(":")
        if self.kind == "file":
            require_file("traces.source", self.source)
        if self.base_source:
            require_file("traces.base_source", self.base_source)
        if "fitted" in self.annotators:
            require_file("traces.fitted_on", self.fitted_on)
        require(
            self.kind != "dataset" or not folder or Path(folder).is_dir(),
            f"traces.source={self.source}: {folder} is no folder; name the one that save_to_disk "
            f"wrote, or traces.source={name} for the hub's",
        )

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who is named to label behaviours."""
        return tuple(filter(None, (self.annotator, self.second_annotator)))

    @property
    def words_fit(self) -> bool:
        """Whether cues and meanings are written for this source's text."""
        return self.words_for != "search" or self.kind == "search"

    def require_words(self) -> None:
        """Refuse cues and meanings of another kind of text than this source's.

        Raises:
            ConfigError: They are the search world's, and the text is natural.
        """
        require(
            self.words_fit,
            f"behaviours=search_moves has cue words and meanings of the search world only, but "
            f"traces.source={self.source} is natural text; set behaviours=venhoff_moves or "
            "cognitive, or write a file of conf/behaviours",
        )

    def depends_on(self, option: str) -> bool:
        """Whether traces can differ with an option, as the others are set."""
        if option in ("annotator_endpoint", "annotator_concurrency"):
            return False
        if option in ("cues", "words_for"):
            by_words = self.annotator in ("auto", "imported") and self.source != "search"
            return bool({"cues", "llm"} & set(self.annotators)) or by_words
        if option == "fitted_on":
            return "fitted" in self.annotators
        if option.startswith("fitted_"):
            return "fitted" in self.annotators or self.kind == "file"
        if option in ("meanings", "annotator_model", "annotator_attempts", "annotator_failures"):
            return "llm" in self.annotators
        return True

    def _check_source(self) -> None:
        require(
            not self.base_source or self.kind == "file",
            f"traces.base_source={self.base_source} goes with a file of traces, not with "
            f"traces.source={self.source}; leave it out",
        )

    def _check_annotators(self) -> None:
        kinds = ("grammar", "cues", "llm", "imported", "fitted")
        one_of("traces.annotator", self.annotator, ("auto", *kinds))
        one_of("traces.second_annotator", self.second_annotator, ("", *kinds))
        require(
            "grammar" not in self.annotators or self.source == "search",
            f"traces.source={self.source} isn't the organisms' world, which the grammar reads; set "
            "traces.annotator=cues, llm, fitted or imported",
        )
        require(
            "imported" not in self.annotators or self.kind == "file",
            f"traces.source={self.source} draws problems, so no labels come with it; "
            f"set traces.annotator={'grammar' if self.kind == 'search' else 'cues, llm or fitted'}",
        )
        self._check_fitted()
        url = self.annotator_endpoint
        require(
            "llm" not in self.annotators
            or (url.startswith(("http://", "https://")) and bool(self.annotator_model)),
            f"traces.annotator=llm needs an http(s) URL (traces.annotator_endpoint={url or '?'}) "
            f"and a model there (traces.annotator_model={self.annotator_model or '?'}); set both",
        )
        positive(self, "traces", "annotator_concurrency", "annotator_attempts")
        require(
            0 <= self.annotator_failures < 1,
            f"traces.annotator_failures={self.annotator_failures} must be a share; try 0.05",
        )
        require(self.jitter >= 0, f"traces.jitter={self.jitter} is negative; set 0 or more")

    def _check_fitted(self) -> None:
        is_fitted = "fitted" in self.annotators
        require(
            not is_fitted or bool(self.fitted_on),
            "traces.annotator=fitted needs labelled traces (traces.fitted_on=?); name a file of "
            "them, in any form that traces.source takes",
        )
        require(
            not is_fitted or self.annotator == "fitted" or self.fitted_on != self.source,
            f"traces.second_annotator=fitted was fitted on the labels that it would be compared "
            f"with (traces.fitted_on={self.fitted_on} is traces.source); its agreement on held-out "
            "problems stands in traces/fitted.json: leave it out, or fit on other traces",
        )
        require(
            -1 <= self.fitted_min_kappa < 1,
            f"traces.fitted_min_kappa={self.fitted_min_kappa} must be a κ below 1; try 0.2",
        )
        positive(self, "traces", "fitted_min_problems")
        require(
            0 <= self.headroom_low < self.headroom_high <= 1,
            f"traces.headroom_low={self.headroom_low} and traces.headroom_high="
            f"{self.headroom_high} must be accuracies in order; try 0.05 and 0.95",
        )
        one_of("traces.words_for", self.words_for, ("", "search", "text"))


@dataclass
class ExportConfig:
    """Traces as span JSONL.

    Attributes:
        split: `select`, `report`, or `all` of them.
        offsets: What offsets count, as in `traces.offsets`; `utf16` is what Doccano shows rightly.
    """

    split: str = "all"
    offsets: str = "codepoints"

    def __post_init__(self) -> None:
        one_of("export.offsets", self.offsets, OFFSET_UNITS)
        one_of("export.split", self.split, ("all", "select", "report"))
