"""The type checker behind the run-time shape checks: beartype, as far as it goes."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

# `int` is fine where a float is asked for, as in PEP 484.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check calls of `function`, unless its hints say `Self`, which a lone method can't resolve."""
    try:
        return _check(function)
    except BeartypeDecorHintPep673Exception:
        return function
