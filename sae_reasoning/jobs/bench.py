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
4. Lockstep: generation while another model reads along and a tenth of the tokens is steered,
   against both models generating by themselves, one after the other.
5. Drawing: generation with 151,936 words, each token drawn by noise of its own key, against taking
   the likeliest.
6. Ranking: all point estimates in one pass over a store, against the bare pass, scikit-learn, and
   itself on ten times as many tokens.
"""

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sae_reasoning.bench.drawing import drawers
from sae_reasoning.bench.editing import editors
from sae_reasoning.bench.ranking import growth, rankers
from sae_reasoning.bench.ratios import GROWTH, Ratio, contest, ratios_of
from sae_reasoning.bench.reading import readers, real_readers
from sae_reasoning.bench.sizes import Contender, Sizes
from sae_reasoning.bench.stepping import steppers
from sae_reasoning.bench.training import trainers
from sae_reasoning.config import FETCHED, Config
from sae_reasoning.edges.artifacts import write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tracker import Tracker

_CONTESTS = {
    "reading": readers,
    "training": trainers,
    "editing": editors,
    "lockstep": steppers,
    "drawing": drawers,
    "ranking": rankers,
}


def bench(
    cfg: Config, *, tracker: Tracker, console: Console, sizes: Sizes | None = None
) -> dict[str, Ratio]:
    """Measure all ratios; write `bench.json` where the command was run."""
    sizes = sizes or Sizes()
    console.plan("bench", sizes.lines())

    def rated(label: str, contenders: Mapping[str, Contender]) -> dict[str, list[float]]:
        turns = console.progress(range(sizes.repeats + 1), "turns", label)
        return contest(contenders, turns)

    Path(cfg.runs).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=cfg.runs) as folder:
        scratch = Path(folder)
        rates: dict[str, list[float]] = {}
        for label, contenders in _CONTESTS.items():
            rates |= rated(label, contenders(sizes, scratch, cfg.device))
        weights, real = Path(cfg.fetch.folder).expanduser() / "smollm2" / FETCHED["smollm2"], {}
        if cfg.fetch.folder and weights.is_file():
            real = rated("reading SmolLM2", real_readers(weights, sizes, scratch, cfg.device))
        with console.progress(1, "contests", "ten times as many tokens") as bar:
            grown = growth(sizes, scratch)
            bar.advance()
    ratios = ratios_of(rates, real, grown)
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
        [[name, *_shown(name, ratio)] for name, ratio in ratios.items()],
    )
    console.say("  wrote bench.json")
    return ratios


def _shown(name: str, one: Ratio) -> list[object]:
    sign = "≤" if name in GROWTH else "≥"
    return [one.value, f"{sign} {one.goal}", one.spread, one.n, one.reached]
