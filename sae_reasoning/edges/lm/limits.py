"""What a model can read: texts no longer than its context, of tokens that it has embeddings of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from sae_reasoning.config import ConfigError


def context_of(config: Any) -> int | None:
    """Tokens of the longest text that a model was made for; None where nothing limits it.

    Learned positions end there; rotary ones go on, to where the model has never been. Scaled ones
    reach as many times further as they are scaled.

    Args:
        config: Of the model, in transformers' words.
    """
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:
        return None
    return max([most, *(int(reach) for reach in _scaled(config, most))])


def _scaled(config: Any, most: int) -> Iterable[float]:
    for name in ("rope_parameters", "rope_scaling"):
        said = getattr(config, name, None)
        if not isinstance(said, Mapping):
            continue
        # Some kinds of block have their own.
        for rope in (said, *(own for own in said.values() if isinstance(own, Mapping))):
            if factor := rope.get("factor"):
                yield factor * (rope.get("original_max_position_embeddings") or most)


def require_context(
    context: int | None, named: str, longest: int, new: int = 0, option: str = "max_new_tokens"
) -> None:
    """Refuse texts that don't fit into a model's context.

    Args:
        context: Of the model.
        named: The model.
        longest: Tokens of the longest text, or prompt.
        new: Tokens that may be written after it.
        option: That says how many.

    Raises:
        ConfigError: They don't fit.
    """
    if context is None or longest + new <= context:
        return
    if longest >= context:
        raise ConfigError(
            f"a text of {longest:,} tokens exceeds the {context:,} of {named}'s context; shorten "
            "it, or choose a model with a longer one"
        )
    raise ConfigError(
        f"{option}={new} after a prompt of {longest:,} tokens exceeds the {context:,} of {named}'s "
        f"context; set {option}={context - longest} or less"
    )


def require_embeddings(
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    named: str,
    texts: Iterable[tuple[str, Sequence[int]]],
) -> None:
    """Refuse texts that hold a token without an embedding, as of a tokenizer that was added to.

    Args:
        tokenizer: Of the texts.
        rows: Of the model's embedding matrix.
        named: The model.
        texts: What each is called, and its token ids.

    Raises:
        ConfigError: A text holds such a token.
    """
    for called, token_ids in texts:
        if (token := max(token_ids, default=0)) >= rows:
            name = tokenizer.convert_ids_to_tokens(token)
            told = f" ({name!r})" if name else ""
            raise ConfigError(
                f"{named} has no token {token}{told}, which {called} holds: it has embeddings of "
                f"{rows:,}; resize them, or make traces with a tokenizer without that token"
            )
