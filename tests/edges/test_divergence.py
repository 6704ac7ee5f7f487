"""How far two models' predictions are apart, token by token."""

import numpy as np
import pytest
import torch

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm import logits
from sae_reasoning.edges.lm.divergence import token_divergences
from sae_reasoning.edges.lm.load import LanguageModel, load

PROMPTS = [[1, 5, 6], [1, 9]], [[1, 7], [1, 4, 4, 8]]
RESPONSES = [[10, 11, 12, 13], [14, 15]]


@pytest.fixture(scope="module")
def pair(tiny_pair: PairConfig) -> tuple[LanguageModel, LanguageModel]:
    return load(tiny_pair.base, "cpu"), load(tiny_pair.rl, "cpu")


def predicted(lm: LanguageModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        found = lm.model(torch.tensor([[*prompt, *response]])).logits[0]
    return found[len(prompt) - 1 : -1].double().log_softmax(-1)


def test_divergence_is_that_of_whole_passes_after_each_readers_own_prompt(
    pair: tuple[LanguageModel, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = pair[0].model.config.vocab_size
    for most in (1 << 28, 12 * vocabulary):  # All at once, and in pieces of three places.
        monkeypatch.setattr(logits, "MAX_LOGITS", most)
        for token_budget in (1, 1000):
            found = token_divergences(pair, PROMPTS, RESPONSES, token_budget)
            for row, response in enumerate(RESPONSES):
                one, other = (
                    predicted(lm, own[row], response) for lm, own in zip(pair, PROMPTS, strict=True)
                )
                expected = (one.exp() * (one - other)).sum(-1).numpy()
                assert expected.min() > 1e-4
                np.testing.assert_allclose(found[row].nats, expected, rtol=1e-3)
                differs = (one.argmax(-1) != other.argmax(-1)).numpy()
                assert found[row].differs.tolist() == differs.tolist()


def test_a_model_does_not_diverge_from_itself(pair: tuple[LanguageModel, LanguageModel]) -> None:
    for one in token_divergences((pair[0], pair[0]), (PROMPTS[0], PROMPTS[0]), RESPONSES, 1000):
        assert one.nats.max() < 1e-6 and not one.differs.any()
    assert token_divergences(pair, ([], []), [], 1000) == []
