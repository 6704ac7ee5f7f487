"""Branches of a text are scored as if each were read alone."""

import pytest
import torch

from sae_reasoning.config import ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.lm.branch import (
    Branch,
    BranchingText,
    branch_log_probs,
    log_probs_at,
)
from sae_reasoning.edges.lm.load import LanguageModel, continuation_ids, encode_prompt, load


def alone(lm: LanguageModel, text: BranchingText, branch: Branch) -> float:
    ids = [*text.token_ids[: branch.after + 1], *branch.token_ids]
    with torch.inference_mode():
        log_probs = lm.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(log_probs[branch.after + i, t].item() for i, t in enumerate(branch.token_ids))


@pytest.mark.parametrize("budget", [1, 64, 4096])
@pytest.mark.parametrize("family", ["tiny_pair", "tiny_neox_pair"])
def test_branches_are_scored_as_if_each_were_read_alone(
    request: pytest.FixtureRequest, family: str, budget: int
) -> None:
    pair: PairConfig = request.getfixturevalue(family)
    lm = load(ModelConfig(pair.base.path), "cpu")
    texts = []
    for words, afters in (
        ("map ash: birch , birch: gold ; notes birch# real ; from ash find gold ?", (3, 9, 12)),
        ("wait for the rain .", (0, 4)),
        ("hold the lamp .", ()),
    ):
        ids = encode_prompt(lm.tokenizer, words)
        branches = [
            Branch(after, continuation_ids(lm, said))
            for after in afters
            for said in ("let me check ,", "stuck here , back up to", "so")
        ]
        texts.append(BranchingText(tuple(ids), tuple(branches)))
    found = branch_log_probs(lm, texts, budget)
    for text, values in zip(texts, found, strict=True):
        expected = [alone(lm, text, branch) for branch in text.branches]
        assert values == pytest.approx(expected, abs=1e-4)


def test_a_continuation_is_encoded_as_after_other_words(tiny_neox_pair: PairConfig) -> None:
    lm = load(ModelConfig(tiny_neox_pair.base.path), "cpu")
    whole = encode_prompt(lm.tokenizer, "ash: birch . let me check ,")
    assert tuple(whole[-len(continuation_ids(lm, "let me check ,")) :]) == continuation_ids(
        lm, "let me check ,"
    )


def test_a_text_beyond_the_reach_of_attention_is_refused(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    lm.model.config.sliding_window = 4
    with pytest.raises(ConfigError, match="attends to 4 tokens"):
        log_probs_at(lm, [(1, 5, 6, 7, 8, 9)], [(0, 5)], [["so then"]], 100)
