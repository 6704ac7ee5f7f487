from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPTJConfig, GPTJForCausalLM

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.load import LanguageModel, decoder_blocks, load
from sae_reasoning.edges.lm.read import (
    pack,
    read_continuations,
    read_residuals,
    splice_losses,
)

LENGTHS = (9, 3, 17, 1, 12, 5)


@pytest.fixture(scope="module")
def lm(tiny_pair: PairConfig) -> LanguageModel:
    return load(tiny_pair.base, "cpu")


@pytest.fixture(scope="module")
def sequences(lm: LanguageModel) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, len(lm.tokenizer), length).tolist() for length in LENGTHS]


def hidden_states(model: nn.Module, sequence: list[int]) -> tuple[torch.Tensor, ...]:
    """The oracle: one sequence, no padding; the last block's comes after the final norm."""
    with torch.no_grad():
        return model(torch.tensor([sequence]), output_hidden_states=True).hidden_states[1:]


def test_residuals_are_transformers_hidden_states_whatever_the_padding(lm, sequences):
    seen = []
    for batch in read_residuals(lm, sequences, [0, 1], token_budget=36):
        for place, row in enumerate(batch.rows):
            seen.append(row)
            length = len(sequences[row])
            assert batch.is_token[place].sum() == length
            assert batch.is_token[place, :length].all()
            expected = hidden_states(lm.model, sequences[row])
            for layer, resid in batch.residuals.items():
                torch.testing.assert_close(resid[place, :length], expected[layer][0])
    assert sorted(seen) == list(range(len(sequences)))


@pytest.mark.parametrize("length", [0, 1, 6])
def test_continuations_are_read_as_if_the_prefix_were_read_with_each(lm, sequences, length):
    prefix = sequences[2][:length]
    seen = []
    for batch in read_continuations(lm, prefix, sequences, [0, 1], token_budget=36):
        for place, row in enumerate(batch.rows):
            seen.append(row)
            size = len(sequences[row])
            assert batch.is_token[place].sum() == size
            expected = hidden_states(lm.model, prefix + sequences[row])
            for layer, resid in batch.residuals.items():
                own = expected[layer][0, length:]
                torch.testing.assert_close(resid[place, :size], own, atol=1e-5, rtol=1e-4)
    assert sorted(seen) == list(range(len(sequences)))


def test_last_layer_is_read_before_the_final_norm(lm, sequences):
    (batch,) = read_residuals(lm, sequences[:1], [2], token_budget=100)
    normed = lm.model.model.norm(batch.residuals[2])
    torch.testing.assert_close(normed, hidden_states(lm.model, sequences[0])[2])


def test_forward_stops_after_the_deepest_layer_and_leaves_no_hook(lm, sequences):
    def refuse(*_: object) -> None:
        raise AssertionError("a block below the deepest layer ran")

    before = num_hooks(lm)
    handle = decoder_blocks(lm.model)[2].register_forward_hook(refuse)
    try:
        assert len(list(read_residuals(lm, sequences, [1, 0], token_budget=64))) > 1
    finally:
        handle.remove()
    assert num_hooks(lm) == before


def test_blocks_that_return_tuples_are_read_too(lm, sequences):
    torch.manual_seed(0)
    config = GPTJConfig(
        vocab_size=len(lm.tokenizer), n_embd=16, n_layer=2, n_head=2, rotary_dim=4, n_positions=32
    )
    facts = replace(lm.facts, num_layers=2, d_model=16)
    gptj = LanguageModel(GPTJForCausalLM(config).eval(), lm.tokenizer, facts, lm.device)
    (batch,) = read_residuals(gptj, sequences[:1], [0], token_budget=100)
    expected = hidden_states(gptj.model, sequences[0])
    torch.testing.assert_close(batch.residuals[0], expected[0])
    same = losses_of(gptj, sequences, layer=0, transform=lambda resid: resid)
    np.testing.assert_allclose(same, losses_of(gptj, sequences, layer=0, transform=None), rtol=1e-5)


def test_batches_hold_like_lengths_and_keep_the_budget():
    lengths = [5, 90, 5, 80, 4, 200]
    batches = list(pack(lengths, token_budget=180))
    assert batches == [[5], [1], [3], [0, 2, 4]]
    lengths = np.random.default_rng(0).integers(20, 300, 400).tolist()
    batches = list(pack(lengths, token_budget=4096))
    assert sorted(index for batch in batches for index in batch) == list(range(400))
    padded = [max(lengths[i] for i in batch) * len(batch) for batch in batches]
    assert max(padded) <= 4096
    assert sum(padded) < 1.05 * sum(lengths)


def test_layer_out_of_range_names_the_layers_there_are(lm, sequences):
    with pytest.raises(ConfigError, match=r"layers=\[7\].*3 blocks, 0\.\.2; choose layers below 3"):
        next(read_residuals(lm, sequences, [7], token_budget=64))


def num_hooks(lm: LanguageModel) -> int:
    """Hooks on the blocks; transformers leaves some of its own after output_hidden_states."""
    return sum(len(block._forward_hooks) for block in decoder_blocks(lm.model))


def losses_of(lm: LanguageModel, sequences: list[list[int]], **how: object) -> np.ndarray:
    starts = [min(3, len(sequence)) for sequence in sequences]
    found = splice_losses(
        lm,
        sequences,
        keep_from=[max(start - 1, 0) for start in starts],
        response_from=starts,
        token_budget=36,
        **how,
    )
    assert found.num_targets.tolist() == [
        len(sequence) - start for sequence, start in zip(sequences, starts, strict=True)
    ]
    return found.summed


def test_losses_without_a_splice_are_the_models_cross_entropy(lm, sequences):
    expected = []
    for sequence in sequences:
        labels = torch.tensor([[-100] * min(3, len(sequence)) + sequence[3:]])
        with torch.no_grad():
            loss = lm.model(torch.tensor([sequence]), labels=labels).loss
        expected.append(loss.item() * max(len(sequence) - 3, 0) if len(sequence) > 3 else 0.0)
    for transform in (None, lambda resid: resid):
        found = losses_of(lm, sequences, layer=1, transform=transform)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_splice_touches_kept_positions_and_no_others(lm, sequences):
    rows = []

    def record(resid: torch.Tensor) -> torch.Tensor:
        rows.append(resid.clone())
        return torch.zeros_like(resid)

    zeroed = losses_of(lm, sequences, layer=1, transform=record)
    plain = losses_of(lm, sequences, layer=1, transform=None)
    assert (abs(zeroed - plain)[[0, 2, 4, 5]] > 1e-3).all()
    expected = torch.cat(
        [
            hidden_states(lm.model, s)[1][0, max(min(3, len(s)) - 1, 0) :]
            for s in by_length(sequences)
        ]
    )
    torch.testing.assert_close(torch.cat(rows), expected)


def by_length(sequences: list[list[int]]) -> Iterator[list[int]]:
    return iter(sorted(sequences, key=lambda sequence: -len(sequence)))
