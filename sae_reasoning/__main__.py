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

_EXIT_ERROR, _EXIT_INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages named; the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(help_text())
        return 0
    try:
        names = [argument for argument in arguments if argument in STAGES]
        overrides = [a for a in arguments if a not in STAGES and a not in _MULTIRUN]
        _refuse_unknown(names, overrides)
        return (_run_many if _MULTIRUN & set(arguments) else _run)(names, overrides)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return _EXIT_INTERRUPTED


def help_text() -> str:
    """Stages, options and examples."""
    from sae_reasoning.compose import group_options, option_names

    width = max(map(len, STAGES))
    parts: dict[str, list[str]] = {}
    for option in option_names():
        part, _, name = option.rpartition(".")
        parts.setdefault(part, []).append(name)
    lines = [
        "python -m sae_reasoning <stage…> [-m] [option=value…]",
        "",
        "Stages, in order; each is up to date, resumes, or is made anew:",
        *(f"  {name:<{width}}  {what}" for name, what in STAGES.items()),
        "",
        "Choices of files (conf/):",
        *(f"  {name}={'|'.join(options)}" for name, options in group_options().items()),
        "",
        "Options (defaults and meaning: sae_reasoning/config/):",
        *(
            f"  {', '.join(names)}" if not part else f"  {part}.{{{', '.join(names)}}}"
            for part, names in parts.items()
        ),
        "",
        "With -m (or --multirun) an option may have several values, in Hydra's words: a,b",
        "range(1,4) glob(*) [1],[2]. Each combination is a job; hydra/launcher=joblib runs jobs",
        "at the same time, hydra.launcher.n_jobs=2 at most two.",
        "",
        "Examples:",
        "  python -m sae_reasoning cache train rank ablate",
        "  python -m sae_reasoning traces cache train train.sae.k=8 experiment=narrow",
        "  python -m sae_reasoning traces cache pair=local pair.name=mine \\",
        "      pair.base.path=/models/base pair.rl.path=/models/rl traces.source=annotated.jsonl",
        "  python -m sae_reasoning traces contrast report -m 'pair=glob(organism_*)'",
        "  python -m sae_reasoning traces cache train -m train.sae.k=8,16 \\",
        "      'experiment=k${train.sae.k}' hydra/launcher=joblib",
        "  make cache train ARGS='train.sae.k=8'     # the same through make",
    ]
    return "\n".join(lines)


def _refuse_unknown(names: Sequence[str], overrides: Sequence[str]) -> None:
    for argument in overrides:
        if "=" not in argument:
            _fail(f"{argument} is no stage; choose of {', '.join(STAGES)}")
    if not names:
        _fail(f"no stage is named; choose of {', '.join(STAGES)}")


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(_EXIT_ERROR)


def _run(names: Sequence[str], overrides: Sequence[str]) -> int:
    from sae_reasoning.compose import compose

    try:
        config = compose(overrides)
    except ConfigError as error:
        _fail(str(error))
    if complaint := run(names, config):
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
