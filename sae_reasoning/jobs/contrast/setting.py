"""What every step of the contrast reads: models, problems, the task, and what is there so far."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sae_reasoning.config import Config, ConfigError, ContrastConfig
from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.contrast.starts import Begun, Place, noise_key
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import Sampler
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.opening import first_problems, open_task
from sae_reasoning.records import REPORT, SELECT, SentenceEnd, Trace
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.rollouts.respond import Prefix, Response, Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.steering.vectors import Steer, steer_once
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start, Task
from sae_reasoning.traces.headroom import advice, headroom_of


@dataclass
class Setting:
    """One contrast.

    Attributes:
        own: Its options.
        cfg: The experiment, for the pair, its layers and folder.
        task: What can be measured.
        models: Of the pair.
        problems: By split.
        behaviours: What is measured.
        parts: Results of steps.
        console: Hears of progress.
        without_headroom: Why answers leave nothing to value executions by, and what to do; "" if
            they leave something.
        traces: Rollouts of both models.
        places: Their opportunities.
        starts: Those at which behaviours are started.
    """

    own: ContrastConfig
    cfg: Config
    task: Task
    models: LoadedPair
    problems: dict[str, list[Problem]]
    behaviours: Sequence[str]
    parts: Parts
    console: Console
    without_headroom: str = ""
    traces: list[Trace] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)

    @property
    def resampling(self) -> Resampling:
        """How intervals are made."""
        return Resampling(self.own.bootstrap, self.own.seed)

    @property
    def sampled(self) -> list[Problem]:
        """Problems of pass@k."""
        return self.problems[REPORT][: self.own.pass_problems]

    @property
    def is_valued(self) -> bool:
        """Whether executions are valued by completion."""
        chosen = self.own.execution_value
        if chosen == "auto":
            return self.is_without_program and not self.without_headroom
        return chosen == "always"

    @property
    def is_without_program(self) -> bool:
        """Whether no program with a chance level judges executions."""
        return bool(self.task.missing("judge", "null"))

    def lines(self) -> dict[str, Any]:
        """The plan."""
        own = self.own
        return {
            "task": self.task.name,
            "behaviours": ", ".join(self.behaviours),
            "problems": ", ".join(f"{s}: {len(p)}" for s, p in self.problems.items()),
            "rollouts": f"{own.samples} a problem and model",
            "vectors": f"{', '.join(own.vectors)}; doses {own.doses}",
            "pass@k": f"{len(self.sampled)} problems × {own.pass_samples}",
        } | (
            {"execution value": f"{own.value_starts} starts × {own.completions} completions"}
            if self.is_valued
            else {}
        )

    def measures(self, name: str, make: Callable[[], list[Measure]]) -> list[Measure]:
        """Measures of a step, from disk if an earlier run got so far."""
        rows = self.parts.json(name, lambda: [asdict(measure) for measure in make()])
        return [Measure(**row) for row in rows]

    def prefixes(self, model: str, begun: Sequence[Begun], sample: int = 0) -> list[Prefix]:
        """What a model goes on from at some starts."""
        return [
            prefix_of(
                self.models[model],
                start.problem.prompt,
                noise_key(start),
                sample,
                begun=start.response_ids if text is None else text,
                opening=opening,
            )
            for start, opening, text in begun
        ]

    def respond(
        self,
        model: str,
        prefixes: Sequence[Prefix],
        stream: str,
        max_new_tokens: int,
        *,
        until: SentenceEnd | None = None,
        steers: Sequence[Steer] | None = None,
        sampler: Callable[[Sampler], Sampler] | None = None,
    ) -> list[Response]:
        """What a model makes of prefixes, under noise of a name."""
        own = self.own
        noise = Noise(f"contrast/{stream}", own.seed)
        return respond(
            self.models[model],
            prefixes,
            Sampling(noise, own.temperature, max_new_tokens, own.batch_size),
            until=until,
            edits=steer_once(steers) if steers else None,
            sampler=sampler,
        )

    def continue_(self, model: str, begun: Sequence[Begun], stream: str, sample: int) -> list[str]:
        """What a model adds to starts, to the end of a sentence."""
        made = self.respond(
            model,
            self.prefixes(model, begun, sample),
            stream,
            self.own.behaviour_tokens,
            until=self.task.sentence_end,
        )
        return [one.added for one in made]


def open_setting(cfg: Config, parts: Path, console: Console) -> Setting:
    """Read what the steps share; no model is loaded."""
    own = cfg.contrast
    most = {SELECT: own.select_problems, REPORT: own.report_problems}
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    task = open_task(cfg, traces)
    headroom = headroom_of(traces, cfg.traces.headroom_low, cfg.traces.headroom_high)
    return Setting(
        own=own,
        cfg=cfg,
        task=task,
        models=LoadedPair(cfg.pair, cfg.device),
        problems=first_problems(cfg, most),
        behaviours=behaviours_of(cfg, task),
        parts=Parts(parts),
        console=console,
        without_headroom=advice(headroom, cfg.traces, cfg.task.max_edges),
    )


def behaviours_of(cfg: Config, task: Task) -> Sequence[str]:
    """The behaviours to measure.

    Raises:
        ConfigError: Some are not marked in this task's text.
    """
    own = cfg.contrast.behaviours
    option, chosen = ("contrast.behaviours", own) if own else ("behaviours", cfg.behaviours)
    known = cfg.behaviours if task.behaviours is None else task.behaviours
    if unknown := [behaviour for behaviour in chosen if behaviour not in known]:
        raise ConfigError(
            f"{option}={list(chosen)}: {', '.join(unknown)} can't be marked in text of "
            f"task={task.name}; choose of {', '.join(sorted(known))}"
        )
    return chosen
