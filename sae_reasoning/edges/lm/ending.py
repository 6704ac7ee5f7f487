"""Where a response ends: at a token that ends the model's turn, or at text that ends what is asked.

What ends a turn is said in several places, and none knows all: a base tokenizer's EOS isn't what a
chat-tuned model writes, generation configs list several, and templates have marks of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from sae_reasoning.edges.lm.prompt import after_answer
from sae_reasoning.records import SentenceEnd

_TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<turn|>",
)
"""As model families call them: ChatML and Qwen, Llama 3, Gemma, Phi, OLMo, gpt-oss."""

_MESSAGE_END, _RETURN = "<|end|>", "<|return|>"
"""Where gpt-oss has both, the first ends a message, as of its thoughts, and the answer follows."""


def find_end_ids(
    tokenizer: PreTrainedTokenizerFast, config: Any, generation_config: Any
) -> tuple[int, ...]:
    """Tokens that end a model's turn, the tokenizer's EOS first; none where nothing says so.

    Args:
        tokenizer: With its chat template, where that is used.
        config: Of the model. Where it doesn't say, its class does, for the vocabulary of another
            model; so it isn't believed of ordinary words.
        generation_config: Of the model; believed unless it was derived from the config.
    """
    apart = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    words = set(tokenizer.get_vocab().values()) - set(apart.values())
    found = _listed(tokenizer)
    for said in (generation_config, config):
        is_own = said is generation_config and not getattr(said, "_from_model_config", False)
        found += [index for index in _listed(said) if is_own or index not in words]
    found += [apart[name] for name in _TURN_ENDS if name in apart]
    after = after_answer(tokenizer)
    found += [index for name, index in apart.items() if name and after.startswith(name)]
    if _RETURN in apart and _MESSAGE_END in apart:
        found = [index for index in found if index != apart[_MESSAGE_END]]
    return tuple(dict.fromkeys(found))


def _listed(says: Any) -> list[int]:
    found = getattr(says, "eos_token_id", None)
    return [] if found is None else [found] if isinstance(found, int) else list(found)


class TextEnd:
    """Tells when a text that is being written has come to its end, however tokens cut it."""

    _REACH = 4

    def __init__(self, decode: Callable[[list[int]], str], rule: SentenceEnd) -> None:
        self._decode, self._rule = decode, rule
        self._holds: dict[int, bool] = {}

    def num_kept(self, token_ids: Sequence[int], is_last: bool) -> int | None:
        """How many of the tokens so far belong to the text; None where it has not ended.

        Args:
            token_ids: Asked about after every one of them.
            is_last: Whether nothing follows.
        """
        if not any(map(self._may_end, token_ids[-self._REACH :])):
            return None
        end = self._rule.find(self._decode(list(token_ids)), is_last=is_last)
        if end is None:
            return None
        kept = len(token_ids)
        while len(self._decode(list(token_ids[: kept - 1]))) >= end:  # After the mark.
            kept -= 1
        return kept

    def _may_end(self, token: int) -> bool:
        if token not in self._holds:
            self._holds[token] = not set(self._rule.marks).isdisjoint(self._decode([token]))
        return self._holds[token]
