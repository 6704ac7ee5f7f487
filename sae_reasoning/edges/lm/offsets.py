"""Which characters of a response each of its tokens is, as it was sampled.

Text doesn't say by which tokens it was written: a model may spell a word in pieces that its
tokenizer would never cut it into. So characters are counted along the tokens themselves.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from sae_reasoning.edges.lm.load import encode_response
from sae_reasoning.records import Trace


def offsets_of(
    tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int], text: str
) -> list[tuple[int, int]]:
    """First character of each token of a response, and one past its last.

    A character that several tokens share, by its bytes, belongs to each of them. Special tokens and
    others that leave no character have none, at the place where they stand.

    Args:
        tokenizer: Of the tokens.
        token_ids: As they were sampled, or read.
        text: What they say.
    """
    ids, offsets = encode_response(tokenizer, text)
    if ids == list(token_ids[: len(ids)]) and len(token_ids) <= len(ids) + 1:
        return offsets + [(len(text), len(text))] * (len(token_ids) - len(ids))
    for is_windowed in (True, False):
        found = _counted(tokenizer, token_ids, text, is_windowed)
        if not found or found[-1][1] == len(text):
            break
    return found


def offsets_in(tokenizer: PreTrainedTokenizerFast, trace: Trace) -> list[tuple[int, int]]:
    """`offsets_of` a trace's response, without the token that ended it."""
    found = offsets_of(tokenizer, trace.token_ids[trace.num_prompt_tokens :], trace.text)
    size = len(trace.text)
    has_end = bool(found) and not trace.truncated and found[-1] == (size, size)
    return found[:-1] if has_end else found


def _counted(
    tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int], text: str, is_windowed: bool
) -> list[tuple[int, int]]:
    """Offsets by decoding on and on: a window of a few tokens at a time, or all from the first."""

    def says(first: int, end: int) -> str:
        return str(
            tokenizer.backend_tokenizer.decode(list(token_ids[first:end]), skip_special_tokens=True)
        )

    found: list[tuple[int, int]] = []
    # Characters before `settled` are counted, by tokens before `read`; those from `first` on are
    # decoded with what follows, since some decoders look at what came before.
    first = read = settled = 0
    lead, start, last = "", 0, 0
    for index in range(len(token_ids)):
        said = says(first, index + 1)
        new = said[len(lead) :] if said.startswith(lead) else ""
        done = settled + _num_alike(new, text[settled : settled + len(new)])
        # Bytes of a character that isn't whole yet are shown as one that isn't in the text.
        is_partial = len(new) > done - settled
        last = max(last, min(done + is_partial, len(text)))
        found.append((start, last))
        start = max(start, done)
        if is_windowed and new and not is_partial:
            first, read, settled = read, index + 1, done
            lead = says(first, read)
    return found


def _num_alike(one: str, other: str) -> int:
    """Characters up to the first that differs."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
