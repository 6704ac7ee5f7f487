"""The task of an experiment, opened from its config: the one place that knows which there are."""

from collections.abc import Sequence

from sae_reasoning.config import Config
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.prompt import prompt_opens_thinking
from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.records import Trace
from sae_reasoning.tasks.protocol import ResponseFormat, Task
from sae_reasoning.tasks.search.task import search_task
from sae_reasoning.tasks.text.task import THINK, TextGrader, response_format, text_task


def open_task(cfg: Config, traces: Sequence[Trace] = ()) -> Task:
    """The task that `cfg` names.

    Args:
        cfg: The experiment.
        traces: Of it, where there are some: they tell which models open a chain of thought
            themselves.
    """
    if cfg.traces.kind == "search":
        return search_task()
    return text_task(
        cfg.behaviours, cfg.traces.cues, _formats(cfg, traces), TextGrader(OutsideScorers())
    )


def _formats(cfg: Config, traces: Sequence[Trace]) -> dict[str, ResponseFormat]:
    prompt = traces[0].prompt if traces else "?"
    writers = {trace.writer for trace in traces if trace.text.lstrip().startswith(THINK)}
    return {
        name: response_format(
            opened=prompt_opens_thinking(load_tokenizer(model), prompt), marks=name in writers
        )
        for name, model in cfg.pair.readers.items()
    }
