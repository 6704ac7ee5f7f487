"""Whether a pair's two models read the same tokens.

Text becomes tokens once, and both read these: a residual of one is compared with that of the other
at the same token. So every token of a text must be the same for both. Special tokens may differ as
long as no text holds them, and may be called otherwise where they have the same part: the same id
begins a text, ends it or pads it. Across families, what texts share is their words; see
behaviours/units.py.
"""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.load import load_tokenizer

_PARTS = ("bos_token_id", "eos_token_id", "pad_token_id")


def differing_tokens(
    one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast
) -> dict[int, tuple[str, str]] | None:
    """Special tokens that two tokenizers don't share: what each calls an id, "" for nothing.

    None where ordinary tokens differ, so that no text can be relied on.
    """
    names = [{index: token for token, index in t.get_vocab().items()} for t in (one, other)]
    if names[0] == names[1]:
        return {}
    found = {
        index: (names[0].get(index, ""), names[1].get(index, ""))
        for index in names[0].keys() | names[1].keys()
        if names[0].get(index) != names[1].get(index)
    }
    for part in _PARTS:
        if (shared := getattr(one, part)) == getattr(other, part):
            found.pop(shared, None)
    added = [tokenizer.added_tokens_decoder for tokenizer in (one, other)]
    for index in found:
        if any(index in name and index not in own for name, own in zip(names, added, strict=True)):
            return None
    return found


def require_shared_tokens(pair: PairConfig, texts: Iterable[Iterable[int]] = ()) -> None:
    """Check that both models of a pair read some texts alike.

    Args:
        pair: The two models.
        texts: Token ids.

    Raises:
        ConfigError: Ordinary tokens differ, or a text holds a special one that does.
    """
    if pair.is_single:
        return
    differing = differing_tokens(load_tokenizer(pair.base), load_tokenizer(pair.rl))
    if differing is None:
        raise ConfigError(
            f"{pair.rl.named} has another tokenizer than {pair.base.named}, so it can't read the "
            "same tokens; choose two models that share a tokenizer (two families, each with a run "
            "of its own, are compared by words: `make match`)"
        )
    if not differing:
        return
    for text in texts:
        for token in text:
            if token in differing:
                own, its = (repr(name) if name else "nothing" for name in differing[token])
                raise ConfigError(
                    f"token {token} is {own} to {pair.base.named} and {its} to {pair.rl.named}, "
                    "and the traces hold it; let both read alike: pair.rl.tokenizer="
                    f"{pair.base.tokenizer or pair.base.path}"
                )
