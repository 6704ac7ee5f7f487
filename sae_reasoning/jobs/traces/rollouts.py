"""Both models answer the same problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    encode_prompt,
    encode_response,
    expresses,
    load,
    load_tokenizer,
)
from sae_reasoning.edges.lm.shared import require_shared_tokens
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.organisms.grammar import NEW_REMARKS, REMARKS
from sae_reasoning.organisms.world import NEW_PLACES, PLACES, Difficulty
from sae_reasoning.records import Trace
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.traces.align import Rollout
from sae_reasoning.traces.problems import PosedProblem, draw_search_problems

WRITERS = ("base", "rl")


def draw_problems(cfg: Config) -> list[PosedProblem]:
    """Problems of the organisms' world, in words that both tokenizers know."""
    problems = draw_search_problems(
        cfg.traces.num_problems,
        cfg.traces.report_share,
        cfg.traces.seed,
        Difficulty(cfg.traces.min_edges, cfg.traces.max_edges),
        PLACES if cfg.traces.places == "known" else NEW_PLACES,
        REMARKS if cfg.traces.remarks == "known" else NEW_REMARKS,
    )
    for model in (cfg.pair.base, cfg.pair.rl):
        if not expresses(load_tokenizer(model), problems[0].prompt):
            raise ConfigError(
                f"the tokenizer of {model.named} doesn't know every word of the problems of "
                f"traces.places={cfg.traces.places}; use traces.places=known, or a tokenizer of "
                "pieces"
            )
    first = problems[0].prompt
    models = (cfg.pair.base, cfg.pair.rl)
    require_shared_tokens(
        cfg.pair, (encode_prompt(load_tokenizer(model), first) for model in models)
    )
    return problems


@dataclass(frozen=True)
class _Task:
    """One rollout to make."""

    problem: PosedProblem
    sample: int


def roll_out(
    cfg: Config, problems: Sequence[PosedProblem], parts: Path, console: Console
) -> list[Trace]:
    """Rollouts of both writers, a part file for every few batches, so a kill loses little."""
    samples = {"base": cfg.traces.base_samples, "rl": cfg.traces.rl_samples}
    console.plan(
        "traces",
        {
            "problems": f"{len(problems)} ({sum(p.split == 'report' for p in problems)} to report)",
            "rollouts": ", ".join(f"{w}: {len(problems) * n}" for w, n in samples.items()),
        },
    )
    made: list[Trace] = []
    for writer in WRITERS:
        model = cfg.pair.base if writer == "base" else cfg.pair.rl
        tasks = [_Task(p, s) for p in problems for s in range(samples[writer])]
        size = 4 * cfg.traces.batch_size
        chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        lm: LanguageModel | None = None
        with console.progress(len(tasks), "rollouts", f"{writer} writes") as bar:
            for number, chunk in enumerate(chunks):
                part = parts / f"{writer}_{number:05d}.parquet"
                if not part.exists():
                    lm = lm or load(model, cfg.device)
                    write_traces(part, list(_write(lm, writer, chunk, cfg)))
                made.extend(read_traces(part))
                bar.advance(len(chunk))
    return made


def _write(lm: LanguageModel, writer: str, tasks: Sequence[_Task], cfg: Config) -> Iterator[Trace]:
    prompts = [encode_prompt(lm.tokenizer, task.problem.prompt) for task in tasks]
    keys = torch.tensor([[cfg.traces.seed, task.problem.number, task.sample] for task in tasks])
    for rollout in generate(
        lm,
        prompts,
        sampler=keyed_sampler(keys, cfg.traces.temperature),
        max_new_tokens=cfg.traces.max_new_tokens,
        batch_size=cfg.traces.batch_size,
    ):
        problem, sample = tasks[rollout.row].problem, tasks[rollout.row].sample
        text = lm.decode(list(rollout.token_ids))
        response_ids, offsets = encode_response(lm.tokenizer, text)
        end_id = None if rollout.truncated else lm.tokenizer.eos_token_id
        yield Rollout(prompts[rollout.row], response_ids, offsets, end_id, text).annotated(
            problem, cfg.traces.source, writer, lm.facts.name, f"{sample:03d}"
        )
