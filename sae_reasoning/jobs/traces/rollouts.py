"""The models answer the same problems."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import Rollout as Generated
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.limits import require_context
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    load,
    load_tokenizer,
)
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.prompt import prompt_opens_thinking
from sae_reasoning.edges.lm.vllm import VllmWriter
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.records import Trace
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.align import Rollout


@dataclass(frozen=True)
class _Task:
    """One rollout to make."""

    problem: Problem
    sample: int


def roll_out(
    cfg: Config, problems: Sequence[Problem], parts: Path, console: Console
) -> list[Trace]:
    """Rollouts of every writer, a part file for every few batches, so a kill loses little.

    Of problems in words they bear no grade and no moves yet.
    """
    _check_lengths(cfg, problems)
    every = {"base": cfg.traces.base_samples, "rl": cfg.traces.rl_samples}
    samples = {writer: every[writer] for writer in cfg.pair.readers}
    console.plan(
        "traces",
        {
            "problems": f"{len(problems)} ({sum(p.split == 'report' for p in problems)} to report)",
            "rollouts": ", ".join(f"{w}: {len(problems) * n}" for w, n in samples.items())
            + (" by vLLM" if cfg.traces.engine == "vllm" else ""),
        },
    )
    made: list[Trace] = []
    for writer, model in cfg.pair.readers.items():
        tasks = [_Task(p, s) for p in problems for s in range(samples[writer])]
        size = 4 * cfg.traces.batch_size
        chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        lm: LanguageModel | VllmWriter | None = None
        with console.progress(len(tasks), "rollouts", f"{writer} writes") as bar:
            for number, chunk in enumerate(chunks):
                part = parts / f"{writer}_{number:05d}.parquet"
                if not part.exists():
                    lm = lm or (
                        VllmWriter(model)
                        if cfg.traces.engine == "vllm"
                        else load(model, cfg.device)
                    )
                    write_traces(part, list(_write(lm, writer, chunk, cfg)))
                made.extend(read_traces(part))
                bar.advance(len(chunk))
    return made


def _check_lengths(cfg: Config, problems: Sequence[Problem]) -> None:
    """Refuse rollouts that some reader of the pair couldn't read to their end.

    Raises:
        ConfigError: The longest would exceed a context.
    """
    facts = [(model, describe(model)) for model in cfg.pair.readers.values()]
    tokenizers = [load_tokenizer(model) for model, _ in facts]
    longest = max(len(encode_prompt(t, p.prompt)) for t in tokenizers for p in problems)
    for model, fact in facts:
        require_context(
            fact.context, model.named, longest, cfg.traces.max_new_tokens, "traces.max_new_tokens"
        )


def _write(
    lm: LanguageModel | VllmWriter, writer: str, tasks: Sequence[_Task], cfg: Config
) -> Iterator[Trace]:
    prompts = [encode_prompt(lm.tokenizer, task.problem.prompt) for task in tasks]
    for rollout in _generated(lm, prompts, tasks, cfg):
        problem, sample = tasks[rollout.row].problem, tasks[rollout.row].sample
        token_ids = list(rollout.token_ids)
        text = lm.decode(token_ids)
        offsets = offsets_of(lm.tokenizer, token_ids, text)
        yield Rollout(prompts[rollout.row], token_ids, offsets, rollout.end_id, text).annotated(
            problem, cfg.traces.source, writer, lm.facts.name, f"{sample:03d}"
        )


def _generated(
    lm: LanguageModel | VllmWriter,
    prompts: Sequence[Sequence[int]],
    tasks: Sequence[_Task],
    cfg: Config,
) -> Iterator[Generated]:
    keys = [(cfg.traces.seed, task.problem.key, task.sample) for task in tasks]
    most, temperature = cfg.traces.max_new_tokens, cfg.traces.temperature
    if isinstance(lm, VllmWriter):
        return lm.write(prompts, keys, temperature=temperature, max_new_tokens=most)
    return generate(
        lm,
        prompts,
        sampler=keyed_sampler(torch.tensor(keys), temperature),
        max_new_tokens=most,
        batch_size=cfg.traces.batch_size,
        shared=True,
    )


def opens_thought(cfg: Config) -> Callable[[Trace], bool]:
    """By trace, whether the prompt that its writer got ends in an open thought."""
    tokenizers = {writer: load_tokenizer(model) for writer, model in cfg.pair.readers.items()}

    @cache
    def opened(writer: str, prompt: str) -> bool:
        return prompt_opens_thinking(tokenizers[writer], prompt)

    return lambda trace: opened(trace.writer, trace.prompt)
