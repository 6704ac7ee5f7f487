"""Checks of values that are set; each failure is one line that names option, value and remedy."""

import re


class ConfigError(ValueError):
    """A wrong value in the config; the message names option, value and remedy."""


def require(condition: bool, message: str) -> None:
    """Refuse with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def positive(section: object, prefix: str, *names: str) -> None:
    """Refuse a value of `section` that isn't above 0."""
    for name in names:
        value = getattr(section, name)
        require(value > 0, f"{prefix}.{name}={value} must be positive; raise it")


def one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that isn't one of `choices`."""
    require(value in choices, f"{option}={value} is unknown; choose one of {', '.join(choices)}")


def other_run(option: str, run: str) -> None:
    """Check the name of a run; none is allowed.

    Raises:
        ConfigError: It isn't `<experiment>/<pair>`.
    """
    require(
        not run or re.fullmatch(r"\w[^/]*/\w[^/]*", run) is not None,
        f"{option}={run} must be <experiment>/<pair>, a folder below runs",
    )
