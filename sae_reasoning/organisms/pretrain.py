"""Next-token training of an organism, on the search world's corpus or on other examples."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sae_reasoning.config import PretrainConfig
from sae_reasoning.organisms.checkpoint import TrainingState
from sae_reasoning.organisms.corpus import Batch, CorpusConfig, Encode, collate, example

Read = Callable[[Tensor, Tensor], Tensor]
"""Logits [place, vocab] at some places, a mask [batch, token], of token ids [batch, token];
gradients flow through them."""
Draw = Callable[[random.Random, float], tuple[str, str]]
"""One prompt with a response, at some progress in [0, 1] through a training."""


@dataclass(frozen=True)
class Run:
    """What a training needs beside a model, its options and its examples.

    Attributes:
        seed: Of the examples.
        reader: Makes a function from token ids to logits of a model.
        pad_id: Token that fills batches.
        state_path: Checkpoint, from which an interrupted training is resumed.
    """

    seed: int
    reader: Callable[[nn.Module], Read]
    pad_id: int
    state_path: Path


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Steps done.
        steps: Steps to do in all.
        metrics: Means since the last report.
        seconds_left: At this run's pace so far.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    seconds_left: float


def seconds_left(started: float, first: int, done: int, steps: int) -> float:
    """Time to the last step, for a run that started at step `first`, `started` by the clock."""
    return (time.monotonic() - started) / (done - first) * (steps - done)


def start_alike(embeddings: Tensor, families: Sequence[Sequence[int]], seed: int) -> None:
    """Give tokens of one family, rows of `embeddings` [vocabulary, d_model], a common component.

    Subwords would show that `ash`, `ash:` and `ash#` are of one place; tokens of whole words don't.
    The expected norms stay the same.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = embeddings.detach().std()
    with torch.no_grad():
        for family in families:
            stem = spread * torch.randn(embeddings.shape[1], generator=generator)
            embeddings[list(family)] = 0.8 * stem + 0.6 * embeddings[list(family)]


def next_token_losses(read: Read, batch: Batch) -> Tensor:
    """Cross-entropy at each response token, in nats; flat, in batch order.

    Padding is on the right, so a causal reader needs no mask.
    """
    targets = batch.is_response[:, 1:]
    logits = read(batch.token_ids, nn.functional.pad(targets, (0, 1)))
    return nn.functional.cross_entropy(
        logits.float(), batch.token_ids[:, 1:][targets], reduction="none"
    )


def rows_at_once(device: torch.device, most: int) -> int:
    """Rows of one forward pass: few stay in a CPU's cache and pad each other little."""
    return most if device.type == "cuda" else min(most, 8)


def pretrain(
    model: nn.Module,
    config: PretrainConfig,
    corpus: CorpusConfig,
    run: Run,
    *,
    encode_prompt: Encode,
    encode_response: Encode,
) -> Iterator[Progress]:
    """Train `model` in place on a corpus, yielding every 50 steps; resumes as `learn` does."""

    def draw(rng: random.Random, progress: float) -> tuple[str, str]:
        return example(rng, corpus, progress)

    return learn(
        model, config, draw, run, encode_prompt=encode_prompt, encode_response=encode_response
    )


def learn(
    model: nn.Module,
    config: PretrainConfig,
    draw: Draw,
    run: Run,
    *,
    encode_prompt: Encode,
    encode_response: Encode,
    yield_every: int = 50,
) -> Iterator[Progress]:
    """Train `model` in place on examples; resumes from the checkpoint if there is one.

    Each step draws its examples from a generator seeded with (seed, step), so a resumed run sees
    what an unbroken one would.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    state = TrainingState(model, optimizer, run.state_path)
    first = state.resume()
    read = run.reader(model)
    device = next(model.parameters()).device
    size = rows_at_once(device, config.batch_size)
    model.train()
    started, losses = time.monotonic(), []
    for step in range(first, config.steps):
        rng = random.Random(f"pretrain/{run.seed}/{step}")
        pairs = sorted(
            (
                (encode_prompt(prompt), encode_response(response))
                for prompt, response in (
                    draw(rng, step / config.steps) for _ in range(config.batch_size)
                )
            ),
            key=lambda pair: len(pair[0]) + len(pair[1]),
        )
        num_targets = sum(len(response) for _, response in pairs)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _schedule(step, config.warmup, config.steps)
        total = 0.0
        for start in range(0, len(pairs), size):
            batch = collate(pairs[start : start + size], run.pad_id).to(device)
            loss = next_token_losses(read, batch).sum() / num_targets
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
        done = step + 1
        if done % config.checkpoint_every == 0 or done == config.steps:
            state.save(done)
        if done % yield_every == 0 or done == config.steps:
            left = seconds_left(started, first, done, config.steps)
            yield Progress(done, config.steps, {"loss": sum(losses) / len(losses)}, left)
            losses.clear()


def _schedule(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    if step < warmup:
        return (step + 1) / warmup
    share = torch.tensor((step - warmup) / max(steps - warmup, 1))
    return 0.1 + 0.45 * (1 + torch.cos(torch.pi * share).item())
