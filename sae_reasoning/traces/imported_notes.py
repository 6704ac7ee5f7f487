"""What isn't meant, perhaps, in traces that somebody brings along, told in a line each."""

from collections.abc import Callable, Sequence

from sae_reasoning.config import ConfigError
from sae_reasoning.records import MODELS
from sae_reasoning.traces.imported import ImportedTrace


def note_problems(traces: Sequence[ImportedTrace], warn: Callable[[str], None]) -> None:
    """Say if writers share few problems, or rows of one problem differ in what they ask.

    Raises:
        ConfigError: Rows of one problem stand in different splits.
    """
    splits: dict[str, ImportedTrace] = {}
    prompts: dict[tuple[str, str], str] = {}
    differing = []
    for trace in traces:
        other = splits.setdefault(trace.problem_id, trace) if trace.split else trace
        if other.split != trace.split:
            raise ConfigError(
                f"{trace.where}: split={trace.split} of problem {trace.problem_id}, which has "
                f"split={other.split} in {other.where}; put all rows of a problem into one split"
            )
        key = trace.problem_id, trace.writer
        if trace.prompt and prompts.setdefault(key, trace.prompt) != trace.prompt:
            differing.append(trace.where)
    if differing:
        warn(
            f"{len(differing)} rows have another prompt than an earlier row of the same writer and "
            f"problem_id (first: {differing[0]}); give different problems different ids"
        )
    _note_numbered([trace for trace in traces if trace.is_numbered and trace.prompt], warn)
    base, rl = ({t.problem_id: 0 for t in traces if t.writer == writer} for writer in MODELS)
    shared = len(base.keys() & rl.keys())
    if base and rl and 2 * shared < min(len(base), len(rl)):
        apart = [
            next(i for i in ids if i not in others) for ids, others in ((base, rl), (rl, base))
        ]
        warn(
            f"base and rl share {shared} of their {len(base)} and {len(rl)} problems (base has "
            f"{apart[0]!r}, rl {apart[1]!r}), and they are compared problem by problem; give a "
            "problem the same problem_id in both"
        )


def _note_numbered(traces: Sequence[ImportedTrace], warn: Callable[[str], None]) -> None:
    """Say if rows that only their place names seem to be of other problems than that."""
    by_prompt: dict[tuple[str, str], str] = {}
    by_place: dict[str, str] = {}
    again, apart = [], []
    for trace in traces:
        first = by_prompt.setdefault((trace.prompt, trace.writer), trace.problem_id)
        if first != trace.problem_id:
            again.append(trace.where)
        if by_place.setdefault(trace.problem_id, trace.prompt) != trace.prompt:
            apart.append(trace.where)
    remedy = "add problem_id, as problems are what is paired, split and resampled"
    if again:
        warn(
            f"{len(again)} rows without problem_id have the prompt of an earlier row (first: "
            f"{again[0]}), but count as other problems; {remedy}"
        )
    if apart:
        warn(
            f"{len(apart)} rows without problem_id are taken for the problem in the same place of "
            f"the other file, but have another prompt (first: {apart[0]}); {remedy}"
        )


def note_single_writer(writers: Sequence[str], say: Callable[[str], None]) -> None:
    """Say what one writer alone is good for; with both there's nothing to say."""
    if len(set(writers)) == 1:
        say(
            f"all traces are {writers[0]}'s: cache and train read them, while rank, ablate, "
            "contrast and report compare two writers; add the other's (traces.base_source, or a "
            "`writer` a line)"
        )
