"""The command line: `python -m sae_reasoning <stage…> [-m] [option=value…]`.

Nothing heavy is imported before the config is checked, so that help and errors come at once.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

from sae_reasoning.config import ConfigError
from sae_reasoning.flow import STAGES, run

_MULTIRUN = {"-m", "--multirun"}
"""As Hydra has it."""

_HELP = {"-h", "--help", "help"}

_EXIT_ERROR, _EXIT_INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages named; the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asks = not arguments or bool(_HELP & set(arguments))
    names = [argument for argument in arguments if argument in STAGES]
    overrides = [a for a in arguments if a not in {*STAGES, *_MULTIRUN, *_HELP}]
    try:
        if asks:
            return _help(names, overrides)
        _refuse_unknown(names, overrides)
        return (_run_many if _MULTIRUN & set(arguments) else _run)(names, overrides)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return _EXIT_INTERRUPTED


def _refuse_unknown(names: Sequence[str], overrides: Sequence[str]) -> None:
    for argument in overrides:
        if "=" not in argument:
            from sae_reasoning.help import meant

            _fail(f"{argument} is no stage; {meant(argument)}")
    if not names:
        _fail(f"no stage is named; choose of {', '.join(STAGES)}")


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(_EXIT_ERROR)


def _help(names: Sequence[str], overrides: Sequence[str]) -> int:
    from sae_reasoning.help import help_text, stage_help

    if not names:
        print(help_text())
        return 0
    try:
        print(stage_help(names, overrides))
    except ConfigError as error:
        _fail(str(error))
    return 0


def _run(names: Sequence[str], overrides: Sequence[str]) -> int:
    from sae_reasoning.compose import compose

    try:
        config = compose(overrides)
    except ConfigError as error:
        _fail(str(error))
    if complaint := run(names, config, overrides):
        _fail(complaint)
    return 0


def _run_many(names: Sequence[str], overrides: Sequence[str]) -> int:
    from sae_reasoning.multirun import multirun

    try:
        all_went_well = multirun(names, overrides)
    except ConfigError as error:
        _fail(str(error))
    if not all_went_well:
        _fail(
            "not all jobs went well, as said above; the same command makes what is missing, and "
            "what is made stands"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
