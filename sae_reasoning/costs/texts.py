"""What writers write: counted where traces are made or brought along, else problems × samples.

Prompts are drawn where a tokenizer is here; responses are as long as was measured of the shipped
models, and what nobody knows is an option (plan.*), said to be assumed.
"""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import fmean

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.costs.work import Texts
from sae_reasoning.edges.artifacts import MissingInput, require_stage
from sae_reasoning.edges.inputs import outside_inputs
from sae_reasoning.edges.lm.load import encode_prompt, encode_response, load_tokenizer
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.opening.problems import draw_own_problems, draw_search_problems
from sae_reasoning.opening.sources import Rows, read_source
from sae_reasoning.traces.imported import ImportedTrace, is_trace, parse_imported

MEASURED_TOKENS = {
    "search_base_llama": 14.8,
    "search_rl_llama": 120.3,
    "search_random_llama": 10.4,
    "search_base_lacking_llama": 14.1,
    "search_sft_lacking_llama": 123.7,
    "search_base_neox": 14.8,
    "search_rl_neox": 137.6,
    "search_base_lacking_neox": 14.1,
    "search_sft_lacking_neox": 143.0,
}
"""Mean tokens of a response of shipped models, on 600 problems of seed 0."""


def texts_of(cfg: Config) -> dict[str, Texts]:
    """What each writer writes.

    Raises:
        ConfigError: `traces.source` or `traces.base_source` names a file that isn't there, or that
            can't be read.
    """
    if made := _made(cfg):
        return made
    rows: Rows = []
    if cfg.traces.kind == "file":
        rows = read_source("traces.source", cfg.traces.source, _unsaid)
        if any(is_trace(row) for _, row in rows):
            return _imported(cfg, rows)
    return _posed(cfg, rows)


def _unsaid(_: str) -> None:
    """What is odd in a file, `traces` says."""


def _made(cfg: Config) -> dict[str, Texts]:
    """From traces that are there and current; empty where there are none."""
    if not (cfg.folder / "traces" / "manifest.json").exists():
        return {}
    try:
        require_stage(cfg.folder, "traces", cfg.settings("traces"), outside_inputs(cfg))
    except (MissingInput, ConfigError):
        return {}
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    return counted(
        (
            (t.writer, t.problem_id, t.num_prompt_tokens, len(t.token_ids) - t.num_prompt_tokens)
            for t in traces
        ),
        "counted in traces",
        is_written=True,
    )


def _imported(cfg: Config, rows: Rows) -> dict[str, Texts]:
    """From rows of traces, which no model here writes."""
    part, found = cfg.traces, {}
    writer = part.writer or ("rl" if part.base_source or cfg.pair.is_single else "")
    sources = [("traces.source", part.source, rows, writer)]
    if part.base_source:
        base = read_source("traces.base_source", part.base_source, _unsaid)
        sources.append(("traces.base_source", part.base_source, base, "base"))
    traces: list[ImportedTrace] = []
    for option, name, some, by in sources:
        traces += parse_imported(
            some, f"{option}={name}", cfg.behaviours, writer=by, marked=False, warn=_unsaid
        )[0]
    if Path(cfg.pair.rl.path).is_dir():
        tokenizer = load_tokenizer(cfg.pair.rl)
        lengths = (
            (
                t.writer,
                t.problem_id,
                len(encode_prompt(tokenizer, t.prompt)),
                len(encode_response(tokenizer, t.text)[0]),
            )
            for t in traces
        )
        return counted(lengths, f"counted in {part.source}", is_written=False)
    for writer, assumed in (("base", cfg.plan.base_tokens), ("rl", cfg.plan.rl_tokens)):
        if own := [t.problem_id for t in traces if t.writer == writer]:
            source = f"counted in {part.source}, lengths assumed"
            lengths_assumed = _assumed(cfg, float(cfg.plan.prompt_tokens), float(assumed))
            found[writer] = Texts(len(own), len(set(own)), *lengths_assumed, source, False)
    return found


def counted(
    lengths: Iterable[tuple[str, str, int, int]], source: str, is_written: bool
) -> dict[str, Texts]:
    """By writer, from problems and tokens; a single model reads others' too."""
    return {
        writer: Texts(
            len(own),
            len({problem for _, problem, *_ in own}),
            fmean(p for *_, p, _ in own),
            fmean(r for *_, r in own),
            sum(r * (p + r / 2) for *_, p, r in own) / max(sum(r for *_, r in own), 1),
            source,
            is_written,
        )
        for writer, own in (
            (writer, list(group))
            for writer, group in groupby(sorted(lengths), key=lambda one: one[0])
        )
    }


def _assumed(cfg: Config, prompt: float, response: float) -> tuple[float, float, float]:
    """Tokens of a prompt, of a response, and before a place in it."""
    return prompt, response, prompt + response * (1 + cfg.plan.spread**2) / 2


def _posed(cfg: Config, rows: Rows) -> dict[str, Texts]:
    """From problems that are drawn, of each writer as many samples as it's asked for."""
    part, problems = cfg.traces, []
    if part.kind == "file":
        problems = draw_own_problems(cfg, rows, _unsaid)
    elif part.kind == "search" and Path(cfg.pair.rl.path).is_dir():
        problems = draw_search_problems(cfg)
    prompt, source = float(cfg.plan.prompt_tokens), "prompts assumed"
    if problems and Path(cfg.pair.rl.path).is_dir():
        tokenizer = load_tokenizer(cfg.pair.rl)
        prompt = fmean(len(encode_prompt(tokenizer, one.prompt)) for one in problems)
        source = "prompts drawn"
    found = {}
    for writer, samples, assumed in (
        ("base", part.base_samples, cfg.plan.base_tokens),
        ("rl", part.rl_samples, cfg.plan.rl_tokens),
    ):
        if writer not in cfg.pair.readers:
            continue
        name = Path(getattr(cfg.pair, writer).path).name
        said = "responses as measured" if name in MEASURED_TOKENS else "responses assumed"
        response = min(MEASURED_TOKENS.get(name, assumed), part.max_new_tokens)
        number = len(problems) or part.num_problems
        told = f"{source}, {said}"
        found[writer] = Texts(
            number * samples, number, *_assumed(cfg, prompt, float(response)), told
        )
    return found
