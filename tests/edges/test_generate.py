"""Batched generation against transformers' own, and edits that stay in their rows."""

import sys
from dataclasses import replace

import pytest
import torch

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.generate import Beside, even_batch_size, generate
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, load
from sae_reasoning.edges.lm.read import read_residuals
from sae_reasoning.steering.edits import (
    NO_EDIT,
    Intervention,
    LatentChange,
    Removal,
    RowEdits,
)
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
    assert sorted(seen[0]) == [0, 1, 2]


def test_rows_edited_together_are_written_as_if_each_were_alone(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    lm = replace(lm, model=lm.model.double())
    prompts = [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS * 2]
    keys = torch.tensor([[0, row, 0] for row in range(len(prompts))])
    decoder = torch.nn.functional.normalize(
        torch.randn(16, 32, generator=torch.manual_seed(0)).double(), dim=1
    )
    dictionaries = {
        layer: (lambda resid: (resid @ decoder.T).relu().topk(4, dim=1), decoder)
        for layer in (0, 1)
    }
    strong, weak = LatentChange.clamp([1, 5], [9.0, 6.0]), LatentChange.ablate([2, 3, 7])
    interventions = [
        NO_EDIT,
        Intervention({0: strong}),
        Intervention({0: weak, 1: strong}),
        Intervention({1: weak}, norm_of={1: strong}),
        Intervention(norm_of={0: strong}, along={0: decoder[9]}),
        Intervention(removals={1: Removal.span(decoder[:3], decoder[4], of_error=True)}),
    ]

    def written(rows: list[int]) -> list[tuple[int, ...]]:
        edits = RowEdits(
            [interventions[row] for row in rows], torch.arange(len(rows)), dictionaries
        )
        return texts(
            lm,
            [prompts[row] for row in rows],
            sampler=keyed_sampler(keys[rows], 1.0),
            batch_size=len(rows),
            edits=edits.by_layer,
        )

    together = written([0, 1, 2, 3, 4, 5])
    assert together == [written([row])[0] for row in range(6)]
    unedited = texts(lm, prompts, sampler=keyed_sampler(keys, 1.0), batch_size=6)
    assert (together[0] == unedited[0], together[1] == unedited[1]) == (True, False)


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


def test_prompts_that_repeat_are_read_once_and_continued_as_if_read_alone(
    tiny_pair: PairConfig, tiny_neox_pair: PairConfig
) -> None:
    for pair in (tiny_pair, tiny_neox_pair):
        lm = load(pair.base, "cpu")
        words = ("map ash: birch , birch: gold ;", "from ash find gold ?", "wait for")
        different = [encode_prompt(lm.tokenizer, text) for text in words]
        prompts = [prompt for prompt in different for _ in range(4)]
        keys = torch.tensor([[0, row // 4, row % 4] for row in range(len(prompts))])

        def run(rows: list[int], size: int) -> dict[int, tuple[int, ...]]:
            made = generate(
                lm,  # noqa: B023
                [prompts[row] for row in rows],  # noqa: B023
                sampler=keyed_sampler(keys[rows], 1.0),  # noqa: B023
                max_new_tokens=12,
                batch_size=size,
            )
            return {rows[rollout.row]: rollout.token_ids for rollout in made}

        everything = list(range(len(prompts)))
        shared = run(everything, len(prompts))
        assert shared == run(everything, 1)
        assert len({shared[row] for row in range(4)}) > 1


@pytest.mark.parametrize(
    ("num_prompts", "threads", "device", "size"),
    [
        (384, 2, "cpu", 96),  # Four of 96, and not three of 128.
        (129, 2, "cpu", 65),
        (24, 2, "cpu", 12),
        (15, 2, "cpu", 15),  # Not worth a second process.
        (384, 1, "cpu", 128),
        (1000, 16, "cpu", 63),
        (1, 2, "cpu", 1),
        (384, 2, "cuda", 128),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is forked")
def test_batches_that_processes_share_are_even(
    num_prompts: int, threads: int, device: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: device == "cuda")
    assert even_batch_size(num_prompts, 128, torch.device(device)) == size


def test_nothing_to_write_is_nothing_written(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    made = generate(lm, [], sampler=greedy, max_new_tokens=4, batch_size=3, shared=True)
    assert list(made) == []


def test_a_model_beside_reads_every_token_before_it_is_edited_and_stays_unedited(
    tiny_pair: PairConfig,
) -> None:
    writer, other = load(tiny_pair.base, "cpu"), load(tiny_pair.rl, "cpu")
    prompts = [encode_prompt(writer.tokenizer, prompt) for prompt in PROMPTS * 2]
    keys = torch.tensor([[0, row, 0] for row in range(len(prompts))])
    beside = Beside(other, [1])
    seen: dict[int, list[torch.Tensor]] = {row: [] for row in range(len(prompts))}

    def edit(resid: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        for row, residual in zip(rows.tolist(), beside.residuals_at(1), strict=True):
            seen[row].append(residual.clone())
        return resid + 0.5

    by_key, eos_id = keyed_sampler(keys, 1.0), writer.tokenizer.eos_token_id

    def ends_some(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return torch.where((rows < 2) & (step == 3), eos_id, by_key(logits, rows, step))

    written = {
        rollout.row: list(rollout.token_ids)
        for rollout in generate(
            writer,
            prompts,
            sampler=ends_some,
            max_new_tokens=8,
            batch_size=len(prompts),
            edits={1: edit},
            beside=beside,
        )
    }
    assert [len(written[row]) for row in (0, 1)] == [3, 3]  # They left, and others moved up.
    for row, tokens in written.items():
        sequence = [*prompts[row], *tokens]
        (batch,) = read_residuals(other, [sequence], [1], 4096)
        expected = batch.residuals[1][0, len(prompts[row]) - 1 : len(sequence)]
        found = torch.stack(seen[row])[: len(expected)]
        torch.testing.assert_close(found, expected[: len(found)], atol=1e-4, rtol=1e-4)
