"""The models answer the same problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.limits import require_context
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    load,
    load_tokenizer,
)
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.vllm import VllmWriter
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.records import Annotation, Trace
from sae_reasoning.rollouts.respond import Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.align import Rollout


@dataclass(frozen=True)
class _Asked:
    """One rollout to make."""

    problem: Problem
    sample: int


def roll_out(
    cfg: Config, problems: Sequence[Problem], parts: Path, console: Console
) -> list[Trace]:
    """Rollouts of every writer, a part file for every few batches, so a kill loses little.

    They bear no grade and no labels yet.
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
    made = list[Trace]()
    for writer, model in cfg.pair.readers.items():
        asked = [_Asked(p, s) for p in problems for s in range(samples[writer])]
        size = 4 * cfg.traces.batch_size
        chunks = [asked[start : start + size] for start in range(0, len(asked), size)]
        lm: LanguageModel | VllmWriter | None = None
        with console.progress(len(asked), "rollouts", f"{writer} writes") as bar:
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
    lm: LanguageModel | VllmWriter, writer: str, asked: Sequence[_Asked], cfg: Config
) -> Iterator[Trace]:
    for one, (ids, end_id) in zip(asked, _sampled(lm, asked, cfg), strict=True):
        text = lm.decode(ids)
        rollout = Rollout(
            encode_prompt(lm.tokenizer, one.problem.prompt),
            ids,
            offsets_of(lm.tokenizer, ids, text),
            end_id,
            text,
            truncated=end_id is None,
        )
        yield rollout.annotated(
            one.problem,
            Annotation((), (), None),
            annotator="",
            writer=writer,
            model=lm.facts.name,
            sample=f"{one.sample:03d}",
        )


def _sampled(
    lm: LanguageModel | VllmWriter, asked: Sequence[_Asked], cfg: Config
) -> list[tuple[list[int], int | None]]:
    """Of each rollout, its tokens and what ended it."""
    noise = Noise("traces", cfg.traces.seed)
    most, temperature = cfg.traces.max_new_tokens, cfg.traces.temperature
    if isinstance(lm, VllmWriter):
        prompts = [encode_prompt(lm.tokenizer, one.problem.prompt) for one in asked]
        keys = noise.keys([(one.problem.key, one.sample) for one in asked])
        made = lm.write(
            prompts, list(map(tuple, keys.tolist())), temperature=temperature, max_new_tokens=most
        )
        return [(list(one.token_ids), one.end_id) for one in sorted(made, key=lambda r: r.row)]
    sampling = Sampling(noise, temperature, most, cfg.traces.batch_size)
    prefixes = [prefix_of(lm, a.problem.prompt, a.problem.key, a.sample) for a in asked]
    return [(list(one.token_ids), one.end_id) for one in respond(lm, prefixes, sampling)]
