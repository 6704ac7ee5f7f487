"""Traces that somebody brings along, in whichever form, cut by the first model's tokenizer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import encode_prompt, encode_response, load_tokenizer
from sae_reasoning.edges.lm.unknown import Unknown
from sae_reasoning.records import Trace
from sae_reasoning.tasks.annotations import Placement
from sae_reasoning.tasks.problems import Problem, assign_splits
from sae_reasoning.traces.align import NoTokensError, Rollout
from sae_reasoning.traces.imported import (
    ImportedTrace,
    parse_imported,
    with_prompts,
)
from sae_reasoning.traces.imported_notes import note_problems

Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""Rows of a file, each with what to call it in a message."""

_UNKNOWN = 0.01
"""Share of a writer's tokens that its tokenizer may not know without a word."""


def import_traces(
    cfg: Config, rows: Rows, base_rows: Rows, console: Console
) -> tuple[list[Trace], Placement]:
    """Traces of a file, and of another one where the base's are apart.

    Args:
        cfg: The experiment.
        rows: Of `traces.source`.
        base_rows: Of `traces.base_source`; none where that is empty.
        console: Told what may not be meant.

    Raises:
        ConfigError: A row is malformed; the message names it.
    """
    _plan(cfg, rows, console)
    imported, placement = list(_parsed(cfg, rows, base_rows, console.warn)), Placement()
    for _, other in imported:
        placement.add(other)
    # A file may hold the answers only.
    items = with_prompts([item for some, _ in imported for item in some])
    note_problems(items, console.warn)
    given = {item.problem_id: item.split for item in items if item.split}
    drawn = assign_splits(
        [item.problem_id for item in items], cfg.traces.report_share, cfg.traces.seed
    )
    # Each writer has its own chat template, or none.
    tokenizers = {name: load_tokenizer(model) for name, model in cfg.pair.readers.items()}
    tokenizer = next(iter(tokenizers.values()))
    # Something must stand before the first behaviour, for its onset to be predicted from.
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    filler = [next((token for token in ends if token is not None), 0)]
    names = {"base": cfg.pair.base.path, "rl": cfg.pair.rl.path}
    if cfg.pair.is_single:
        names = dict.fromkeys(names, "imported")  # By whoever; this model only reads them.
    made, unknown = [], Unknown(tokenizer)
    for number, item in enumerate(items):
        response_ids, offsets = encode_response(tokenizer, item.text)
        unknown.count(item.writer, item.text, response_ids, offsets)
        split = given.get(item.problem_id) or drawn[item.problem_id]
        problem = Problem(item.problem_id, split, item.prompt)
        prompt_ids = item.prompt and encode_prompt(
            tokenizers.get(item.writer, tokenizer), item.prompt
        )
        rollout = Rollout(
            prompt_ids or filler, response_ids, offsets, None, item.text, item.truncated
        )
        try:
            trace = rollout.annotated(
                problem,
                item.annotation,
                annotator="imported",
                writer=item.writer,
                model=names[item.writer],
                sample=f"{number:05d}",
            )
        except NoTokensError as error:
            raise ConfigError(
                f"{item.where}: {error}; leave it out, or name a tokenizer that has tokens for it"
            ) from error
        made.append(trace)
    if shares := unknown.above(_UNKNOWN):
        said = " and ".join(f"{share:.0%} of {writer}'s" for writer, share in shares.items())
        console.warn(
            f"traces.source={cfg.traces.source}: the tokenizer of "
            f"{next(iter(cfg.pair.readers.values())).named} doesn't know {said} tokens and reads "
            f"them as {unknown.token}; name a pair whose tokenizer knows this text"
        )
    return made, placement


def _plan(cfg: Config, rows: Rows, console: Console) -> None:
    """Say what is imported, before it's read."""
    part = cfg.traces
    named = {"source": part.source} | (
        {"base source": part.base_source} if part.base_source else {}
    )
    labelled_by = "the file" if part.annotator in ("auto", "imported") else part.annotator
    console.plan(
        "traces",
        named
        | {
            "rows": f"{len(rows):,}" + (" without the base's" if part.base_source else ""),
            "behaviours": f"{', '.join(cfg.behaviours)}, labelled by {labelled_by}",
        },
    )


def _parsed(
    cfg: Config, rows: Rows, base_rows: Rows, warn: Callable[[str], None]
) -> Iterator[tuple[list[ImportedTrace], Placement]]:
    marked = bool({"auto", "imported"} & set(cfg.traces.annotators))
    other = cfg.traces.base_source
    yield parse_imported(
        rows,
        f"traces.source={cfg.traces.source}",
        cfg.behaviours,
        writer=cfg.traces.writer or ("rl" if other or cfg.pair.is_single else ""),
        marked=marked,
        offsets=cfg.traces.offsets,
        warn=warn,
    )
    if other:
        yield parse_imported(
            base_rows,
            f"traces.base_source={other}",
            cfg.behaviours,
            writer="base",
            marked=marked,
            offsets=cfg.traces.offsets,
            warn=warn,
        )
