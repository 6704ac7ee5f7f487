"""Our speed as ratios to the peers', on models made on the spot.

Each ratio is one of medians, from repeats in which the contenders take turns: whatever else the
machine does meanwhile hits all of them. Models are random, since speed doesn't read weights.

1. Reading: `cache`'s own path to HDF5, synced; against the bare forward pass of a model that ends
   after the deepest layer, on the same batches; and against transformer-lens' `run_with_cache` of
   that layer, on the same weights and batches, its result kept in memory, with and without its
   `stop_at_layer`.
2. Training: our loop fed from HDF5, against sae-lens's trainer fed from tensors in memory.
3. Generation: a batch against transformers' own `generate`; generation in which most rows of a
   batch undergo an edit of their own, against the same generation without; a grid of conditions and
   problems, against as many plain generations in the batch size that suits these best; and where
   processes of one thread each can share these, as many rows at once in all, against one process
   with as many threads.
4. Lockstep: generation while another model reads along and a tenth of the tokens is pushed, against
   both models generating by themselves, one after the other.
5. Ranking: all point estimates in one pass over a store, against the bare pass, scikit-learn, and
   itself on ten times as many tokens.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sae_reasoning.config import FETCHED, Config
from sae_reasoning.edges.artifacts import write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.jobs.bench.editing import editors
from sae_reasoning.jobs.bench.ranking import BEHAVIOURS, growth, rankers
from sae_reasoning.jobs.bench.reading import readers, real_readers
from sae_reasoning.jobs.bench.sizes import Contender, Sizes
from sae_reasoning.jobs.bench.stepping import steppers
from sae_reasoning.jobs.bench.training import trainers

PAIRS = {
    "cache_over_forward": ("cache", "forward"),
    "cache_over_transformer_lens": ("cache", "transformer_lens"),
    "cache_over_transformer_lens_stopped": ("cache", "transformer_lens_stopped"),
    "train_over_sae_lens": ("train", "sae_lens"),
    "generate_over_transformers": ("generate", "transformers"),
    "shared_over_generate": ("shared", "plain_grid"),
    "edit_over_generate": ("edit", "generate"),
    "grid_over_generate": ("grid", "plain_grid"),
    "lockstep_over_sum": ("lockstep", "both_alone"),
    "rank_over_bandwidth": ("rank", "encode"),
    "rank_over_sklearn": ("rank", "scikit_learn"),
}
"""Ours and the other's, of each ratio of rates."""
GROWTH = {"rank_time_10x": "time", "rank_memory_10x": "memory"}
"""What ten times as many tokens take, over what they take once."""

GOALS = {
    "cache_over_forward": 0.9,
    "cache_over_transformer_lens": 1.4,
    "cache_over_transformer_lens_stopped": 1.0,
    "train_over_sae_lens": 0.95,
    "generate_over_transformers": 1.5,
    "shared_over_generate": 1.2,
    "edit_over_generate": 0.9,
    "grid_over_generate": 0.8,
    "lockstep_over_sum": 0.83,
    "rank_over_bandwidth": 0.5,
    "rank_over_sklearn": 50.0,
    "rank_time_10x": 10.5,
    "rank_memory_10x": 1.1,
}
"""Least of a ratio of rates; most of a growth."""
SMOLLM2 = "cache_over_forward_smollm2"
"""The first ratio again, of a real model, where `make fetch` has brought its weights."""


@dataclass(frozen=True)
class Ratio:
    """One line of bench.json.

    Attributes:
        value: Median rate of ours over the median rate of the other's; of a growth, the median.
        goal: What it should reach; of a growth, not exceed.
        n: Turns of each.
        spread: Distance between the quartiles of the ratio turn by turn.
        reached: Whether the goal is.
    """

    value: float
    goal: float
    n: int
    spread: float
    reached: bool


def bench(
    cfg: Config, *, tracker: Tracker, console: Console, sizes: Sizes | None = None
) -> dict[str, Ratio]:
    """Measure all ratios; write `bench.json` where the command was run."""
    sizes = sizes or Sizes()
    console.plan(
        "bench",
        {
            "reading": f"{sizes.num_sequences} sequences, block {sizes.layer} of "
            f"{sizes.num_layers}, width {sizes.d_model}",
            "training": f"{sizes.d_model} -> {sizes.d_sae} latents, k={sizes.k}, "
            f"{sizes.steps} steps of {sizes.batch_size} tokens",
            "editing": f"{sizes.rows} rows of {sizes.new_tokens} tokens, width "
            f"{sizes.edited_d_model}, two layers; a grid of {sizes.grid_conditions} conditions and "
            f"{sizes.grid_problems} problems",
            "lockstep": "as many rows of both models",
            "ranking": f"{sizes.ranked_tokens:,} tokens, width {sizes.d_model}, {sizes.d_sae:,} "
            f"latents, k={sizes.k}, {len(BEHAVIOURS)} behaviours; ten times as many of width "
            f"{sizes.narrow}",
            "turns": f"{sizes.repeats} each ({sizes.grown_repeats} where tokens are ten times as "
            f"many), {torch.get_num_threads()} threads",
        },
    )
    Path(cfg.runs).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=cfg.runs) as folder:
        scratch = Path(folder)
        rates = _contest(readers(sizes, scratch, cfg.device), sizes, console, "reading")
        rates |= _contest(trainers(sizes, scratch, cfg.device), sizes, console, "training")
        rates |= _contest(editors(sizes, scratch, cfg.device), sizes, console, "editing")
        rates |= _contest(steppers(sizes, scratch, cfg.device), sizes, console, "lockstep")
        rates |= _contest(rankers(sizes, scratch, cfg.device), sizes, console, "ranking")
        of_smollm2: dict[str, list[float]] = {}
        weights = Path(cfg.fetch.folder).expanduser() / "smollm2" / FETCHED["smollm2"]
        if cfg.fetch.folder and weights.is_file():
            contest = real_readers(weights, sizes, scratch, cfg.device)
            of_smollm2 = _contest(contest, sizes, console, "reading SmolLM2")
        with console.progress(1, "contests", "ten times as many tokens") as bar:
            grown = growth(sizes, scratch)
            bar.advance()
    ratios = {
        name: _ratio(rates[ours], rates[theirs], GOALS[name])
        for name, (ours, theirs) in PAIRS.items()
        if ours in rates
    }
    if of_smollm2:
        goal = GOALS["cache_over_forward"]
        ratios[SMOLLM2] = _ratio(of_smollm2["cache"], of_smollm2["forward"], goal)
    ratios |= {name: _growth(grown[what], GOALS[name]) for name, what in GROWTH.items()}
    write_json(Path("bench.json"), ratios)
    tracker.summary({name: ratio.value for name, ratio in ratios.items()})
    console.table(
        "rates, units a second (training: steps; ranking: latents; all others: tokens)",
        ["contender", "median"],
        [[name, round(statistics.median(values), 1)] for name, values in rates.items()],
    )
    console.table(
        "ratios of medians",
        ["ratio", "value", "goal", "spread", "n", "reached"],
        [
            [
                name,
                r.value,
                ("≤ " if name in GROWTH else "≥ ") + str(r.goal),
                r.spread,
                r.n,
                r.reached,
            ]
            for name, r in ratios.items()
        ],
    )
    console.say("  wrote bench.json")
    return ratios


def _contest(
    contenders: Mapping[str, Contender], sizes: Sizes, console: Console, label: str
) -> dict[str, list[float]]:
    """Rates of each contender, turn by turn; the first turn warms up and isn't counted."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in console.progress(range(sizes.repeats + 1), "turns", label):
        for name, work in contenders.items():
            started = time.perf_counter()
            amount = work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                rates[name].append(amount / (time.perf_counter() - started))
    return rates


def _ratio(ours: Sequence[float], others: Sequence[float], goal: float) -> Ratio:
    by_turn = [a / b for a, b in zip(ours, others, strict=True)]
    value = round(statistics.median(ours) / statistics.median(others), 3)
    return Ratio(value, goal, len(by_turn), _spread(by_turn), value >= goal)


def _growth(by_turn: Sequence[float], goal: float) -> Ratio:
    value = round(statistics.median(by_turn), 3)
    return Ratio(value, goal, len(by_turn), _spread(by_turn), value <= goal)


def _spread(by_turn: Sequence[float]) -> float:
    low, _, high = statistics.quantiles(by_turn, n=4)
    return round(high - low, 3)
