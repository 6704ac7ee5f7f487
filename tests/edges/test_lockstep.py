"""Two models in lockstep: what is decided happens, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, load
from sae_reasoning.edges.lm.lockstep import View, lockstep
from sae_reasoning.steering.noise import keyed_sampler

_COLD = 0.03
"""A temperature at which the logits of random models decide, not the noise."""
PROMPTS = [
    "map ash: birch , birch: gold ; notes birch# real ; from ash find gold ?",
    "map ash: gold ; notes ash# real ; from ash find gold ?",
    "wait for the rain . map oak: fern elm , elm: salt ; from oak find salt ?",
]


@dataclass
class Decided:
    layer: Tensor
    change: Tensor
    is_scaled: Tensor
    is_swapped: Tensor
    token: Tensor


def nothing(rows: Tensor, d_model: int = 32) -> Decided:
    return Decided(
        torch.full_like(rows, -1),
        torch.zeros(len(rows), d_model),
        torch.zeros(len(rows), dtype=torch.bool),
        torch.zeros(len(rows), dtype=torch.bool),
        torch.full_like(rows, -1),
    )


def both(pair: PairConfig, double: bool = False) -> tuple[LanguageModel, LanguageModel]:
    models = load(pair.base, "cpu"), load(pair.rl, "cpu")
    for lm in models if double else ():
        lm.model.double()
    return models


def prompts_of(lm: LanguageModel, times: int = 3) -> list[list[int]]:
    return [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS * times]


def keys_of(prompts: list[list[int]]) -> Tensor:
    return torch.tensor([[5, row, 0] for row in range(len(prompts))])


def alone(lm: LanguageModel, **options: object) -> list[tuple[int, ...]]:
    prompts = prompts_of(lm)
    sampler = keyed_sampler(keys_of(prompts), 1.0)
    rollouts = generate(
        lm,
        prompts,
        sampler=sampler,
        max_new_tokens=20,
        batch_size=9,
        **options,  # type: ignore[arg-type]
    )
    return [r.token_ids for r in sorted(rollouts, key=lambda r: r.row)]


def together(
    base: LanguageModel,
    rl: LanguageModel,
    policy: Callable[[Tensor, int, View, View], Decided],
    batch_size: int = 9,
    others: list[list[int]] | None = None,
    temperature: float = 1.0,
) -> list[tuple[int, ...]]:
    prompts = prompts_of(base)
    rollouts = lockstep(
        base,
        rl,
        prompts,
        policy=policy,
        layers=[0, 1],
        sampler=keyed_sampler(keys_of(prompts), temperature),
        max_new_tokens=20,
        batch_size=batch_size,
        other_prompts=others,
    )
    return [r.token_ids for r in sorted(rollouts, key=lambda r: r.row)]


@pytest.fixture(params=["llama", "neox"])
def pair(request, tiny_pair: PairConfig, tiny_neox_pair: PairConfig) -> PairConfig:
    return tiny_pair if request.param == "llama" else tiny_neox_pair


def test_a_policy_that_never_acts_leaves_the_base_alone(pair: PairConfig) -> None:
    base, rl = both(pair)
    assert together(base, rl, lambda rows, *_: nothing(rows)) == alone(base)


def test_swapping_every_token_is_the_other_models_generation(pair: PairConfig) -> None:
    base, rl = both(pair)

    def swap(rows: Tensor, *_: object) -> Decided:
        decided = nothing(rows)
        decided.is_swapped[:] = True
        return decided

    swapped = together(base, rl, swap)
    assert swapped == alone(rl)
    assert swapped != alone(base)


def test_a_steering_vector_of_nothing_changes_nothing(pair: PairConfig) -> None:
    base, rl = both(pair, double=True)

    def steer(rows: Tensor, *_: object) -> Decided:
        decided = nothing(rows)
        decided.layer[:] = rows % 2
        return decided

    assert together(base, rl, steer) == alone(base)


def test_a_steering_vector_is_the_same_edit_of_a_plain_generation(pair: PairConfig) -> None:
    """Rows of one parity, after one block; what comes later sees the steered state."""
    base, rl = both(pair, double=True)
    change = 3 * torch.randn(32, generator=torch.Generator().manual_seed(0))

    def steer(rows: Tensor, *_: object) -> Decided:
        decided = nothing(rows)
        decided.layer[rows % 2 == 1] = 1
        decided.change[:] = change
        return decided

    def edit(resid: Tensor, rows: Tensor) -> Tensor:
        return torch.where((rows % 2 == 1)[:, None], resid + change.to(resid), resid)

    steered = together(base, rl, steer)
    assert steered == alone(base, edits={1: edit})
    assert steered[::2] == alone(base)[::2]
    assert steered[1::2] != alone(base)[1::2]


def test_rows_under_different_policies_are_what_each_is_alone(pair: PairConfig) -> None:
    base, rl = both(pair, double=True)
    change = 3 * torch.randn(32, generator=torch.Generator().manual_seed(1))

    def mixed(rows: Tensor, step: int, *_: object) -> Decided:
        decided = nothing(rows)
        decided.layer[(rows % 4 == 1) & (step % 2 == 0)] = 0
        decided.layer[(rows % 4 == 2) & (step % 3 == 0)] = 1
        decided.change[:] = change
        decided.is_swapped[:] = (rows % 4 == 3) & (step < 4)
        return decided

    assert together(base, rl, mixed) == together(base, rl, mixed, batch_size=1)


def test_a_token_that_is_decided_is_written(pair: PairConfig) -> None:
    base, rl = both(pair)

    def write(rows: Tensor, step: int, *_: object) -> Decided:
        decided = nothing(rows)
        decided.token[:] = 9 if step < 3 else -1
        return decided

    written = together(base, rl, write)
    assert {ids[:3] for ids in written} == {(9, 9, 9)}
    assert len({ids[3:] for ids in written}) > 1


def test_a_policy_sees_both_models_unedited(tiny_pair: PairConfig) -> None:
    base, rl = both(tiny_pair, double=True)
    prompt = prompts_of(base)[0]
    seen = []

    def look(rows: Tensor, step: int, own: View, other: View) -> Decided:
        seen.append((own, other))
        decided = nothing(rows)
        decided.layer[:], decided.change[:] = 0, 5.0
        return decided

    list(
        lockstep(
            base,
            rl,
            [prompt],
            policy=look,
            layers=[1],
            sampler=lambda logits, rows, step: logits.argmax(-1),
            max_new_tokens=1,
            batch_size=1,
        )
    )
    for lm, view in zip((base, rl), seen[0], strict=True):
        out = lm.model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
        torch.testing.assert_close(view.logits, out.logits[:, -1].float())
        torch.testing.assert_close(view.residuals[1], out.hidden_states[2][:, -1])


def test_models_with_different_tokenizers_are_refused(
    tiny_pair: PairConfig, tiny_neox_pair: PairConfig
) -> None:
    base, rl = load(tiny_pair.base, "cpu"), load(tiny_neox_pair.rl, "cpu")
    with pytest.raises(ConfigError, match="different tokenizers"):
        together(base, rl, lambda rows, *_: nothing(rows))


def test_a_writer_with_a_sliding_window_is_refused(tiny_pair: PairConfig) -> None:
    base, rl = both(tiny_pair)
    base.model.config.layer_types = ["sliding_attention"] * 3
    base.model.config.sliding_window = 16
    with pytest.raises(ConfigError, match="attends to a sliding window"):
        together(base, rl, lambda rows, *_: nothing(rows))


def swap_all(rows: Tensor, *_: object) -> Decided:
    decided = nothing(rows)
    decided.is_swapped[:] = True
    return decided


def test_a_model_that_reads_along_may_have_prompts_of_its_own(pair: PairConfig) -> None:
    """What it says is then what it says to its own; the writer's stay as they are."""
    base, rl = both(pair, double=True)
    same = prompts_of(base)
    given = together(base, rl, swap_all, temperature=_COLD)
    assert together(base, rl, swap_all, others=same, temperature=_COLD) == given
    longer = [[*ids, *ids[1:], *ids[1 : row + 2]] for row, ids in enumerate(same)]
    found = together(base, rl, swap_all, others=longer, temperature=_COLD)
    sampler = keyed_sampler(keys_of(longer), _COLD)
    own = generate(rl, longer, sampler=sampler, max_new_tokens=20, batch_size=9)
    assert found == [r.token_ids for r in sorted(own, key=lambda r: r.row)]
    assert found != given
    assert together(base, rl, lambda rows, *_: nothing(rows), others=longer) == alone(base)
    in_pairs = together(base, rl, swap_all, batch_size=2, others=longer, temperature=_COLD)
    assert in_pairs == found


def test_a_residual_that_is_scaled_keeps_its_direction_and_gets_the_length(
    pair: PairConfig,
) -> None:
    """Whatever is added, what counts is how long the residual gets."""
    base, rl = both(pair, double=True)

    def steer(size: float, *, is_scaled: bool) -> list[tuple[int, ...]]:
        def policy(rows: Tensor, _step: int, own: View, _other: View) -> Decided:
            decided = nothing(rows)
            decided.layer[:], decided.is_scaled[:] = 1, is_scaled
            decided.change = own.residuals[1] * size
            return decided

        return together(base, rl, policy, temperature=_COLD)

    thrice = steer(2.0, is_scaled=False)
    assert steer(-4.0, is_scaled=True) == steer(2.0, is_scaled=True) == thrice
    assert steer(-4.0, is_scaled=False) != thrice  # Turned round.
    assert steer(-2.0, is_scaled=True) == together(
        base, rl, lambda rows, *_: nothing(rows), temperature=_COLD
    )
