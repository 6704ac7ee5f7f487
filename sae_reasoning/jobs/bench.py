"""Our speed as ratios to the peers', on models made on the spot.

Each ratio is one of medians, from repeats in which the contenders take turns: whatever else the
machine does meanwhile hits all of them. Models are random, since speed doesn't read weights.

1. Reading: `cache`'s own path to HDF5, synced; against the bare forward pass of a model that ends
   after the deepest layer, on the same batches; and against transformer-lens' `run_with_cache` of
   that layer, on the same weights and batches, its result kept in memory, with and without its
   `stop_at_layer`.
2. Training: our loop fed from HDF5, against sae-lens's trainer fed from tensors in memory.
3. Editing: generation in which most rows of a batch undergo an edit of their own, against the same
   generation without.
"""

import contextlib
import copy
import io
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sae_reasoning.config import Config, ModelConfig, SaeConfig, TrainConfig
from sae_reasoning.edges.activation_layout import Layout, fill_shards
from sae_reasoning.edges.activation_store import ActivationStore, StoreAttributes, StoreWriter
from sae_reasoning.edges.artifacts import write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.create import (
    Shape,
    SpecialTokens,
    new_llama,
    save_model,
    word_tokenizer,
)
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import LanguageModel, load, resolve_device
from sae_reasoning.edges.lm.read import pack, read_residuals
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.edges.sae_training import train_sae
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms import grammar
from sae_reasoning.steering.edits import NO_EDIT, Intervention, LatentChange, RowEdits
from sae_reasoning.steering.noise import keyed_sampler

PAIRS = {
    "cache_over_forward": ("cache", "forward"),
    "cache_over_transformer_lens": ("cache", "transformer_lens"),
    "cache_over_transformer_lens_stopped": ("cache", "transformer_lens_stopped"),
    "train_over_sae_lens": ("train", "sae_lens"),
    "edit_over_generate": ("edit", "generate"),
}
"""Ours and the other's, of each ratio."""

GOALS = {
    "cache_over_forward": 0.9,
    "cache_over_transformer_lens": 1.4,
    "cache_over_transformer_lens_stopped": 1.0,
    "train_over_sae_lens": 0.95,
    "edit_over_generate": 0.8,
}

Contender = Callable[[], int]
"""Does its work once and returns how much it was (tokens, steps)."""


@dataclass(frozen=True)
class Sizes:
    """How much each contest does.

    Attributes:
        repeats: Turns of each contender, after one that isn't counted.
        d_model: Width of the model that reads.
        num_layers: Its blocks.
        layer: The one whose output is kept.
        num_sequences: Read at a time, of 16 to 256 tokens.
        token_budget: Tokens of one pass, padding included.
        d_sae: Latents of the SAEs that train.
        k: Active latents a token.
        batch_size: Tokens a step.
        steps: A turn.
        rows: Generated at a time.
        new_tokens: A row.
        edited_d_model: Width of the model that generates, four blocks deep.
        edited_d_sae: Latents of the dictionaries that edit, after two of its blocks.
        edited_latents: Latents of one edit, by layer.
    """

    repeats: int = 5
    d_model: int = 512
    num_layers: int = 8
    layer: int = 3
    num_sequences: int = 48
    token_budget: int = 4096
    d_sae: int = 2048
    k: int = 32
    batch_size: int = 1024
    steps: int = 20
    rows: int = 128
    new_tokens: int = 64
    edited_d_model: int = 128
    edited_d_sae: int = 512
    edited_latents: int = 5


@dataclass(frozen=True)
class Ratio:
    """One line of bench.json.

    Attributes:
        value: Median rate of ours over the median rate of the other's.
        goal: What it should reach.
        n: Turns of each.
        spread: Distance between the quartiles of the ratio turn by turn.
    """

    value: float
    goal: float
    n: int
    spread: float


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
            f"{sizes.edited_d_model}, two layers",
            "turns": f"{sizes.repeats} each, {torch.get_num_threads()} threads",
        },
    )
    Path(cfg.runs).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=cfg.runs) as scratch:
        rates = _contest(_readers(sizes, Path(scratch), cfg.device), sizes, console, "reading")
        rates |= _contest(_trainers(sizes, Path(scratch), cfg.device), sizes, console, "training")
        rates |= _contest(_editors(sizes, Path(scratch), cfg.device), sizes, console, "editing")
    ratios = {
        name: _ratio(rates[ours], rates[theirs], GOALS[name])
        for name, (ours, theirs) in PAIRS.items()
    }
    write_json(Path("bench.json"), ratios)
    tracker.summary({name: ratio.value for name, ratio in ratios.items()})
    console.table(
        "rates, units a second (reading and editing: tokens; training: steps)",
        ["contender", "median"],
        [[name, round(statistics.median(values), 1)] for name, values in rates.items()],
    )
    console.table(
        "ratios of medians",
        ["ratio", "value", "goal", "spread", "n", "reached"],
        [[name, r.value, r.goal, r.spread, r.n, r.value >= r.goal] for name, r in ratios.items()],
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
    low, _, high = statistics.quantiles(by_turn, n=4)
    value = statistics.median(ours) / statistics.median(others)
    return Ratio(round(value, 3), goal, len(by_turn), round(high - low, 3))


# Reading


def _readers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    from transformer_lens.model_bridge import TransformerBridge

    lm = _language_model(
        scratch / "reader", sizes.d_model, sizes.num_layers, device, max_positions=512
    )
    sequences = _sequences(sizes, len(lm.tokenizer))
    cut = _cut(lm, sizes.layer)
    batches = [
        nn.utils.rnn.pad_sequence([torch.tensor(sequences[row]) for row in rows], True).to(
            lm.device
        )
        for rows in pack([len(s) for s in sequences], sizes.token_budget)
    ]
    num_tokens = sum(map(len, sequences))
    # Its present way in; HookedTransformer, the older one, is slower still.
    peer: Any = TransformerBridge.boot_transformers(str(scratch / "reader"), device=str(lm.device))
    hook = f"blocks.{sizes.layer}.hook_resid_post"

    def cache() -> int:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            _write_store(Path(folder), lm, sequences, sizes)
        return num_tokens

    @torch.no_grad()
    def forward() -> int:
        for token_ids in batches:
            cut.base_model(input_ids=token_ids, use_cache=False)
        return num_tokens

    @torch.no_grad()
    def peer_read(token_ids: Tensor, stop: int | None) -> Tensor:
        _, kept = peer.run_with_cache(
            token_ids, names_filter=lambda name: name == hook, return_type=None, stop_at_layer=stop
        )
        return kept[hook]

    def transformer_lens(stop: int | None = None) -> int:
        for token_ids in batches:
            peer_read(token_ids, stop)
        return num_tokens

    (ours,) = read_residuals(lm, [sequences[0]], [sizes.layer], sizes.token_budget)
    theirs = peer_read(torch.tensor([sequences[0]], device=lm.device), None)
    torch.testing.assert_close(theirs, ours.residuals[sizes.layer], rtol=1e-3, atol=1e-4)
    return {
        "cache": cache,
        "forward": forward,
        "transformer_lens": transformer_lens,
        "transformer_lens_stopped": lambda: transformer_lens(sizes.layer + 1),
    }


def _language_model(
    folder: Path, d_model: int, num_layers: int, device: str, *, max_positions: int
) -> LanguageModel:
    """A random Llama that speaks the organisms' words, through the code path of any model."""
    words = grammar.vocabulary()
    tokenizer = word_tokenizer(words, SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS))
    heads = max(d_model // 64, 2)
    shape = Shape(d_model, num_layers, heads, 3 * d_model, max_positions)
    model = new_llama(shape, tokenizer, seed=0)
    save_model(model, tokenizer, folder, torch.float32)
    return load(ModelConfig(path=str(folder)), device)


def _sequences(sizes: Sizes, vocab_size: int) -> list[list[int]]:
    rng = random.Random(0)
    return [
        [rng.randrange(3, vocab_size) for _ in range(rng.randint(16, 256))]
        for _ in range(sizes.num_sequences)
    ]


def _cut(lm: LanguageModel, layer: int) -> Any:
    """The model up to `layer`, without its last norm; nothing of it is ever computed in vain."""
    cut: Any = copy.deepcopy(lm.model)
    cut.model.layers = cut.model.layers[: layer + 1]
    cut.model.config.num_hidden_layers = layer + 1
    cut.model.norm = nn.Identity()
    return cut


def _write_store(
    folder: Path, lm: LanguageModel, sequences: Sequence[Sequence[int]], sizes: Sizes
) -> None:
    """What `cache` does for one reader and layer."""
    layout = Layout.plan([len(s) for s in sequences], [1] * len(sequences), 65536)
    writer = StoreWriter(
        folder,
        StoreAttributes(
            model=lm.facts.name,
            revision="",
            model_fingerprint=lm.facts.fingerprint,
            tokenizer_fingerprint=lm.facts.tokenizer_fingerprint,
            traces_fingerprint="bench",
            layer=sizes.layer,
            dtype="float16",
            d_model=lm.facts.d_model,
            num_traces=len(sequences),
            num_tokens=layout.num_tokens,
            num_shards=len(layout.shards),
        ),
        [str(number) for number in range(len(sequences))],
    )
    read = partial(read_residuals, lm, layers=[sizes.layer], token_budget=sizes.token_budget)
    for _ in fill_shards({sizes.layer: writer}, layout, sequences, read):
        pass


# Training


def _trainers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = resolve_device(device)
    lm = _language_model(
        scratch / "reader", sizes.d_model, sizes.num_layers, device, max_positions=512
    )
    # Enough rows that the turns of a training pass over several mixing buffers.
    many = replace(sizes, num_sequences=2 * sizes.num_sequences)
    _write_store(scratch / "store", lm, _sequences(many, len(lm.tokenizer)), sizes)
    store = ActivationStore.open(scratch / "store")
    # As long as a real training, so that records and dead latents come as seldom; cut short below.
    config = TrainConfig(
        sae=SaeConfig(d_sae=sizes.d_sae, k=sizes.k),
        steps=10_000,
        batch_size=sizes.batch_size,
        mixing_tokens=max(store.num_tokens // 4, sizes.batch_size),
    )

    def train() -> int:
        batches = store.shuffled_batches(sizes.batch_size, 0, None, config.mixing_tokens)
        with contextlib.suppress(StopIteration):  # That's how a training without batches ends.
            train_sae(
                config,
                itertools.islice(batches, sizes.steps),
                d_in=sizes.d_model,
                seed=0,
                device=device,
            )
        return sizes.steps

    rows = store.read(torch.randperm(store.num_tokens)).to(device)

    def in_memory() -> Iterator[Tensor]:
        while True:
            for start in range(0, len(rows) - sizes.batch_size + 1, sizes.batch_size):
                yield rows[start : start + sizes.batch_size]

    def peer() -> int:
        sae = sae_lens.TopKTrainingSAE(
            sae_lens.TopKTrainingSAEConfig(
                d_in=sizes.d_model, d_sae=sizes.d_sae, k=sizes.k, device=device
            )
        )
        trainer = SAETrainer(
            SAETrainerConfig(
                total_training_samples=sizes.steps * sizes.batch_size,
                train_batch_size_samples=sizes.batch_size,
                lr=config.lr,
                lr_end=config.lr,
                device=device,
                logger=LoggingConfig(log_to_wandb=False),
            ),
            sae,
            in_memory(),
        )
        with contextlib.redirect_stderr(io.StringIO()):  # Its bar.
            trainer.fit()
        return sizes.steps

    return {"train": train, "sae_lens": peer}


# Editing


def _editors(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    lm = _language_model(
        scratch / "writer", sizes.edited_d_model, 4, device, max_positions=256 + sizes.new_tokens
    )
    layers = (1, 2)
    dictionaries = {}
    for layer in layers:
        config = SaeConfig(d_sae=sizes.edited_d_sae, k=min(16, sizes.edited_d_sae))
        sae = build_training_sae(
            config, d_in=sizes.edited_d_model, seed=layer, steps=1, device=lm.device
        )
        dictionary = finish(sae, 1.0)
        dictionaries[layer] = (dictionary.encode_sparse, dictionary.W_dec)
    interventions = _interventions(sizes, layers)
    rng = random.Random(0)
    prompts = [
        [rng.randrange(3, len(lm.tokenizer)) for _ in range(rng.randint(80, 120))]
        for _ in range(sizes.rows)
    ]
    keys = torch.tensor([[0, row, 0] for row in range(sizes.rows)])
    which = torch.arange(sizes.rows) % len(interventions)

    def roll_out(edits: Mapping[int, Any] | None = None) -> int:
        rollouts = generate(
            lm,
            prompts,
            sampler=keyed_sampler(keys, 1.0),
            max_new_tokens=sizes.new_tokens,
            batch_size=sizes.rows,
            edits=edits,
        )
        return sum(len(rollout.token_ids) for rollout in rollouts)

    def edit() -> int:
        return roll_out(RowEdits(interventions, which, dictionaries).by_layer)

    return {"edit": edit, "generate": roll_out}


def _interventions(sizes: Sizes, layers: Sequence[int]) -> list[Intervention]:
    """As in `ablate`: no edit, the edits of three behaviours, and their controls."""
    rng = random.Random(0)

    def latents() -> list[int]:
        return rng.sample(range(sizes.edited_d_sae), sizes.edited_latents)

    found = [NO_EDIT]
    for _ in range(3):
        ablated = {layer: LatentChange.ablate(latents()) for layer in layers}
        matched = {layer: LatentChange.ablate(latents()) for layer in layers}
        clamped = {
            layer: LatentChange.clamp(latents(), [4.0] * sizes.edited_latents) for layer in layers
        }
        along = {
            layer: nn.functional.normalize(torch.randn(sizes.edited_d_model), dim=0)
            for layer in layers
        }
        found += [
            Intervention(ablated),
            Intervention(clamped),
            Intervention(matched, norm_of=ablated),
            Intervention(norm_of=ablated, along=along),
        ]
    return found
