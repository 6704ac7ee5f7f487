"""Roll out both models on the same problems, grade and annotate; or import annotated traces."""

import glob
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, Stage, fingerprint_files
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    encode_response,
    expresses,
    load,
    load_tokenizer,
)
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms.grammar import NEW_REMARKS, REMARKS
from sae_reasoning.organisms.world import NEW_PLACES, PLACES, Difficulty
from sae_reasoning.records import Trace
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.traces.align import Rollout, build_trace
from sae_reasoning.traces.annotate import ANNOTATORS
from sae_reasoning.traces.imported import read_imported
from sae_reasoning.traces.problems import (
    SELECT,
    PosedProblem,
    assign_splits,
    draw_search_problems,
)
from sae_reasoning.traces.summary import summarise

_WRITERS = ("base", "rl")


def traces(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `traces/traces.parquet`: rows sorted by split, problem, writer and sample."""
    facts = {"base": describe(cfg.pair.base), "rl": describe(cfg.pair.rl)}
    inputs = {writer: fact.fingerprint for writer, fact in facts.items()}
    inputs |= {f"{writer}_tokenizer": f.tokenizer_fingerprint for writer, f in facts.items()}
    if cfg.traces.source not in ANNOTATORS:
        source = Path(cfg.traces.source)
        inputs["source"] = fingerprint_files(source.parent, glob.escape(source.name))
    with Stage(cfg.folder / "traces", cfg.settings("traces"), inputs) as stage:
        if stage.is_current:
            console.current("traces", stage.final)
            assert stage.manifest
            return stage.manifest
        parts = stage.folder / "parts"
        made = _roll_out(cfg, parts, console) if cfg.traces.source in ANNOTATORS else _import(cfg)
        made.sort(key=lambda t: (t.split != SELECT, t.problem_id, t.writer, t.trace_id))
        write_traces(stage.folder / "traces.parquet", made)
        shutil.rmtree(parts, ignore_errors=True)
        summary = summarise(made, cfg.behaviours)
        tracker.table("traces", summary)
        manifest = stage.finish(
            {
                "traces": len(made),
                "problems": len({t.problem_id for t in made}),
                "tokens": sum(len(t.token_ids) for t in made),
            }
        )
    tracker.summary(manifest.counts)
    console.table("moves by writer", list(summary.columns), summary.values.tolist())
    console.wrote(stage.final, manifest)
    console.next("make cache")
    return manifest


def _refuse_unknown_words(cfg: Config, prompt: str) -> None:
    """Refuse problems that a tokenizer can't tell its model."""
    for model in (cfg.pair.base, cfg.pair.rl):
        if not expresses(load_tokenizer(model), prompt):
            raise ConfigError(
                f"the tokenizer of {model.named} doesn't know every word of the problems of "
                f"traces.places={cfg.traces.places}; use traces.places=known, or a tokenizer of "
                "pieces"
            )


@dataclass(frozen=True)
class _Task:
    """One rollout to make."""

    problem: PosedProblem
    sample: int


def _roll_out(cfg: Config, parts: Path, console: Console) -> list[Trace]:
    """Rollouts of both writers, a part file for every few batches, so a kill loses little."""
    problems = draw_search_problems(
        cfg.traces.num_problems,
        cfg.traces.report_share,
        cfg.traces.seed,
        Difficulty(cfg.traces.min_edges, cfg.traces.max_edges),
        PLACES if cfg.traces.places == "known" else NEW_PLACES,
        REMARKS if cfg.traces.remarks == "known" else NEW_REMARKS,
    )
    _refuse_unknown_words(cfg, problems[0].prompt)
    samples = {"base": cfg.traces.base_samples, "rl": cfg.traces.rl_samples}
    console.plan(
        "traces",
        {
            "problems": f"{len(problems)} ({sum(p.split == 'report' for p in problems)} to report)",
            "rollouts": ", ".join(f"{w}: {len(problems) * n}" for w, n in samples.items()),
        },
    )
    made: list[Trace] = []
    for writer in _WRITERS:
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


def _import(cfg: Config) -> list[Trace]:
    """Traces of the file that `traces.source` names, tokenised by the base's tokenizer."""
    imported = read_imported(Path(cfg.traces.source), cfg.behaviours)
    problem_ids = [item.problem_id for item in imported]
    splits = assign_splits(problem_ids, cfg.traces.report_share, cfg.traces.seed)
    tokenizer = load_tokenizer(cfg.pair.base)
    names = {"base": cfg.pair.base.path, "rl": cfg.pair.rl.path}
    made = []
    for number, item in enumerate(imported):
        response_ids, offsets = encode_response(tokenizer, item.text)
        made.append(
            build_trace(
                encode_prompt(tokenizer, item.prompt),
                response_ids,
                offsets,
                item.annotation,
                end_id=None,
                annotator="imported",
                trace_id=f"{item.problem_id}/{item.writer}/{number:05d}",
                problem_id=item.problem_id,
                split=splits[item.problem_id],
                writer=item.writer,
                model=names[item.writer],
                prompt=item.prompt,
                text=item.text,
                truncated=item.truncated,
            )
        )
    return made
