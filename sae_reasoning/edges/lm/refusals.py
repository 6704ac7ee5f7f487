"""What is said of models that can't be had."""

from collections.abc import Mapping
from typing import Any

from sae_reasoning.config import ConfigError


def require_whole(report: Mapping[str, Any], named: str, remedy: str) -> None:
    """Refuse a model some of whose weights weren't there: transformers draws those at random.

    Args:
        report: Of transformers, what it loaded (`output_loading_info`).
        named: Option and value.
        remedy: What to do instead.

    Raises:
        ConfigError: Weights are missing.
    """
    if absent := sorted(report["missing_keys"]):
        raise ConfigError(
            f"{named} lacks {len(absent)} of its weights ({absent[0]}, …), which would be drawn at "
            f"random; {remedy}"
        )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
