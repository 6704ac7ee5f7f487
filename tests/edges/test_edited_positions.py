"""An edit is the same however a text is read: at once, token by token, alone, in a batch."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from byte_level import saying
from torch import Tensor

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import LanguageModel, load
from sae_reasoning.steering.edits import Intervention, LatentChange, RowEdits

LAYER, WIDTH, NUM_LATENTS = 1, 32, 24
CHOSEN, VALUES = [2, 3, 7, 11], [6.0, 3.0, 5.0, 4.0]
PROMPTS = [[1, *range(20, 26)], [1, 40], [1, *range(50, 62)], [1, 40]]
"""Of different lengths, so that all but one are padded, and one of them twice."""
SCRIPTS = [[30, 31, 32, 33, 34], [35, 36, 37, 38, 39], [41, 42, 43, 44, 45], [46, 47, 48, 49, 29]]

DECODER = torch.nn.functional.normalize(
    torch.randn(NUM_LATENTS, WIDTH, generator=torch.Generator().manual_seed(0)).double(), dim=1
)


def encode(resid: Tensor) -> tuple[Tensor, Tensor]:
    return (resid @ DECODER.T).relu().topk(8, dim=1)


def chosen_latents(resid: Tensor) -> Tensor:
    values, indices = encode(resid)
    return resid.new_zeros(len(resid), NUM_LATENTS).scatter(1, indices, values)[:, CHOSEN]


By = Callable[[Tensor], Tensor]
EDITS: dict[str, tuple[Intervention, By]] = {
    "ablate": (
        Intervention({LAYER: LatentChange.ablate(CHOSEN)}),
        lambda x: x - chosen_latents(x) @ DECODER[CHOSEN],
    ),
    "clamp": (
        Intervention({LAYER: LatentChange.clamp(CHOSEN, VALUES)}),
        lambda x: x + (torch.tensor(VALUES).to(x) - chosen_latents(x)) @ DECODER[CHOSEN],
    ),
    "add": (
        Intervention(along={LAYER: 5.0 * DECODER[9]}),
        lambda x: x + 5.0 * DECODER[9],
    ),
}


@pytest.fixture(scope="module")
def lm(tiny_pair: PairConfig) -> LanguageModel:
    found = load(tiny_pair.base, "cpu")
    return replace(found, model=found.model.double())


@torch.inference_mode()
def at_once(lm: LanguageModel, row: int, edit: By) -> Tensor:
    """Logits that predict each token of the script, of one pass over prompt and script."""
    first = len(PROMPTS[row]) - 1

    def hook(_module: object, _args: object, output: object) -> object:
        resid = output[0] if isinstance(output, tuple) else output
        assert isinstance(resid, Tensor)
        changed = resid.clone()
        changed[0, first:] = edit(resid[0, first:])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = decoder_blocks(lm.model)[LAYER].register_forward_hook(hook)
    try:
        ids = torch.tensor([PROMPTS[row] + SCRIPTS[row][:-1]])
        return lm.model(ids, use_cache=False).logits[0, first:]
    finally:
        handle.remove()


def step_by_step(lm: LanguageModel, rows: list[int], of_row: list[Intervention]) -> list[Tensor]:
    """The same by generation of some rows together."""
    heard: list[list[Tensor]] = [[] for _ in rows]
    said = saying(*(SCRIPTS[row] for row in rows))

    def sampler(logits: Tensor, places: Tensor, step: int) -> Tensor:
        for place, own in zip(places.tolist(), logits, strict=True):
            heard[place].append(own)
        return said(logits, places, step)

    edits = RowEdits(of_row, torch.arange(len(rows)), {LAYER: (encode, DECODER)})
    list(
        generate(
            lm,
            [PROMPTS[row] for row in rows],
            sampler=sampler,
            max_new_tokens=len(SCRIPTS[0]),
            batch_size=len(rows),
            edits=edits.by_layer,
        )
    )
    return [torch.stack(own) for own in heard]


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("rows", [[0], [1], [0, 1, 2], [1, 3, 0, 2], [1, 3, 1, 3]], ids=str)
def test_an_edit_at_once_is_the_edit_step_by_step_in_any_batch(lm, kind, rows):
    intervention, edit = EDITS[kind]
    found = step_by_step(lm, rows, [intervention] * len(rows))
    for row, own in zip(rows, found, strict=True):
        torch.testing.assert_close(own.double(), at_once(lm, row, edit), atol=1e-5, rtol=1e-5)
        # At every position the edit is one that can be seen.
        plain = at_once(lm, row, lambda x: x)
        assert ((own - plain).abs().amax(1) > 1e-3).all()


def test_rows_of_a_batch_undergo_each_its_own_edit(lm):
    kinds = list(EDITS)
    rows = [0, 1, 2]
    found = step_by_step(lm, rows, [EDITS[kind][0] for kind in kinds])
    for row, kind, own in zip(rows, kinds, found, strict=True):
        expected = at_once(lm, row, EDITS[kind][1])
        torch.testing.assert_close(own.double(), expected, atol=1e-5, rtol=1e-5)
