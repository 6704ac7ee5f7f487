"""Batched generation against transformers' own, and edits that stay in their rows."""

import pytest
import torch

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, load
from sae_reasoning.steering.noise import keyed_sampler

PROMPTS = [
    "map ash: birch , birch: gold ; notes birch# real ; from ash find gold ?",
    "map ash: gold ; notes ash# real ; from ash find gold ?",
    "no rain today . map oak: fern elm , fern: none , elm: salt ; "
    "notes fern# open elm# open ; from oak find salt ?",
]


def greedy(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
    return logits.argmax(-1)


def texts(lm: LanguageModel, prompts: list[list[int]], **options: object) -> list[tuple[int, ...]]:
    rollouts = generate(lm, prompts, max_new_tokens=20, **options)  # type: ignore[arg-type]
    return [r.token_ids for r in sorted(rollouts, key=lambda r: r.row)]


def test_greedy_rollouts_equal_those_of_transformers(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    prompts = [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS]
    ours = texts(lm, prompts, sampler=greedy, batch_size=3)
    for prompt, written in zip(prompts, ours, strict=True):
        theirs = lm.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
        )[0, len(prompt) :].tolist()
        if lm.tokenizer.eos_token_id in theirs:
            theirs = theirs[: theirs.index(lm.tokenizer.eos_token_id)]
        assert list(written) == theirs


def test_a_rollout_is_the_same_in_any_batch(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    prompts = [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS * 4]
    sampler = keyed_sampler(torch.tensor([[0, i, 0] for i in range(len(prompts))]), 1.0)
    together = texts(lm, prompts, sampler=sampler, batch_size=12)
    assert together == texts(lm, prompts, sampler=sampler, batch_size=5)


def test_an_edit_acts_on_generated_positions_of_its_rows_only(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    prompts = [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS]
    seen: list[list[int]] = []

    def edit(resid: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows.tolist())
        return torch.where((rows == 1)[:, None], resid + 5.0, resid)

    plain = texts(lm, prompts, sampler=greedy, batch_size=3)
    edited = texts(lm, prompts, sampler=greedy, batch_size=3, edits={1: edit})
    assert (edited[0], edited[2]) == (plain[0], plain[2])
    assert edited[1] != plain[1]
    assert seen[0] == [0, 1, 2]


def test_a_cut_rollout_says_so(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")

    def never_ends(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return torch.full((len(rows),), 7)

    (rollout,) = generate(lm, [[1, 9]], sampler=never_ends, max_new_tokens=6, batch_size=1)
    assert rollout.truncated and rollout.token_ids == (7,) * 6


def test_a_model_that_predicts_nan_writes_nothing(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[-1] = torch.nan
    prompts = [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS]
    with pytest.raises(
        ConfigError, match=r"predicts NaN 0 tokens after the prompt.*mend its weights"
    ):
        list(generate(lm, prompts, sampler=greedy, max_new_tokens=4, batch_size=3))
