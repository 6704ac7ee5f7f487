"""Stretches of text that a tokenizer doesn't know, and reads as one and the same token."""

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast


class Unknown:
    """Counts the tokens that stand for what a tokenizer doesn't know, by writer.

    Attributes:
        token: What unknown stretches are read as; "" where there is no such token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        # What the vocabulary's model falls back on need not be called so in the tokenizer's config.
        model = getattr(tokenizer.backend_tokenizer, "model", None)
        self.token = str(getattr(model, "unk_token", None) or tokenizer.unk_token or "")
        self._id = tokenizer.convert_tokens_to_ids(self.token) if self.token else None
        self._tokens: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()

    def count(
        self,
        writer: str,
        text: str,
        token_ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
    ) -> None:
        """Count a text's tokens; the unknown token itself, written out, isn't one."""
        self._tokens[writer] += len(token_ids)
        self._unknown[writer] += sum(
            token_id == self._id and text[start:end].strip() != self.token
            for token_id, (start, end) in zip(token_ids, offsets, strict=True)
        )

    def above(self, least: float) -> dict[str, float]:
        """Share of unknown tokens of each writer with more than `least` of them."""
        shares = {writer: self._unknown[writer] / max(n, 1) for writer, n in self._tokens.items()}
        return {writer: share for writer, share in shares.items() if share > least}
