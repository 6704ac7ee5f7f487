"""What follows prefixes under a steering vector, and two models on the same texts."""

import torch

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.branch import Branch, BranchingText, branch_log_probs
from sae_reasoning.edges.lm.compare import compare
from sae_reasoning.edges.lm.load import encode_prompt, load
from sae_reasoning.edges.lm.steered import SteeredContinuations
from sae_reasoning.steering.policies import disagreement

PROMPTS = [
    "map ash: birch , birch: gold ; notes birch# real ; from ash find gold ?",
    "map ash: gold ; notes ash# real ; from ash find gold ?",
    "wait for the rain . map oak: fern elm , elm: salt ; from oak find salt ?",
]


def test_without_a_push_continuations_are_as_likely_as_ever(
    tiny_pair: PairConfig, tiny_neox_pair: PairConfig
) -> None:
    for pair in (tiny_pair, tiny_neox_pair):
        lm = load(pair.base, "cpu")
        prefixes = [tuple(encode_prompt(lm.tokenizer, prompt)) for prompt in PROMPTS]
        continuations = [(7, 9, 11), (8,), (12, 7)]
        texts = [
            BranchingText(prefix, (Branch(len(prefix) - 1, continuation),))
            for prefix, continuation in zip(prefixes, continuations, strict=True)
        ]
        sums = torch.tensor(branch_log_probs(lm, texts, 4096))[:, 0]
        ours = SteeredContinuations(lm, prefixes, continuations).log_probs(1, torch.zeros(32))
        torch.testing.assert_close(ours, sums / torch.tensor([3, 1, 2]), rtol=1e-4, atol=1e-4)


def test_climbing_a_push_makes_continuations_likelier(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    prefixes = [encode_prompt(lm.tokenizer, prompt) for prompt in PROMPTS]
    onsets = SteeredContinuations(lm, prefixes, [(7, 9)] * 3)
    change = torch.zeros(32, requires_grad=True)
    before = onsets.log_probs(1, change).mean()
    (slope,) = torch.autograd.grad(before, change)
    assert slope.norm() > 0
    after = onsets.log_probs(1, 0.1 * slope / slope.norm()).mean()
    assert after > before
    assert torch.equal(onsets.log_probs(1, change).mean(), before)


def test_two_models_are_compared_where_they_predict_the_response(tiny_pair: PairConfig) -> None:
    models = {"base": load(tiny_pair.base, "cpu"), "rl": load(tiny_pair.rl, "cpu")}
    texts = [(1, 7, 8, 9, 10), (1, 12, 13)]
    every = torch.ones(4, dtype=torch.bool)
    found = compare(
        models, texts, [3, 1], [1], 4096, disagreement, lambda own: own[1][:, :2], every
    )
    assert list(zip(found.sequence.tolist(), found.token.tolist(), strict=True)) == [
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
    ]
    outs = {
        name: lm.model(input_ids=torch.tensor([texts[0]]), output_hidden_states=True)
        for name, lm in models.items()
    }
    differs, divergence = disagreement(*(out.logits[0, 2:4] for out in outs.values()))
    assert found.differs[:2].tolist() == differs.tolist()
    torch.testing.assert_close(found.divergence[:2], divergence, rtol=1e-4, atol=1e-5)
    for name, out in outs.items():
        torch.testing.assert_close(
            found.residuals[name][1][:2], out.hidden_states[2][0, 2:4], rtol=1e-4, atol=1e-4
        )
