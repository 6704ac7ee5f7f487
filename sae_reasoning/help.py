"""What `--help` prints: of everything, or of the options of some stages."""

import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from sae_reasoning.compose import compose, group_options, option_names
from sae_reasoning.config import Config
from sae_reasoning.flow import STAGES

_PARTS = {"organisms": "organism"}
"""Stages whose part of the config is called otherwise."""

_WIDTH, _MEANING_AT = 100, 44


def help_text() -> str:
    """Stages, options and examples."""
    width = max(map(len, STAGES))
    parts: dict[str, list[str]] = {}
    for option in option_names():
        part, _, name = option.rpartition(".")
        parts.setdefault(part, []).append(name)
    lines = [
        "python -m sae_reasoning <stage…> [-m] [option=value…]",
        "python -m sae_reasoning <stage…> --help     what the stages' options mean, and defaults",
        "",
        "Stages, in order; each is up to date, resumes, or is made again:",
        *(f"  {name:<{width}}  {what}" for name, what in STAGES.items()),
        "",
        "Choices of files (conf/):",
        *(f"  {name}={'|'.join(options)}" for name, options in group_options().items()),
        "",
        "Options (defaults and meaning: <stage> --help, or sae_reasoning/config/):",
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


def stage_help(names: Sequence[str], overrides: Sequence[str] = ()) -> str:
    """The options of some stages: what each means, and what it would be with `overrides`.

    Raises:
        ConfigError: An override is wrong.
    """
    config = compose(overrides)
    lines = []
    for stage in names:
        lines += [f"{stage}: {STAGES[stage]}", ""]
        part = _PARTS.get(stage, stage)
        if part in {one.name for one in fields(config)}:
            section = getattr(config, part)
            lines += [*_paragraphs(type(section)), "", *_options(part, section), ""]
        else:
            lines += ["It has no options of its own.", ""]
    common = (
        f"Of every stage: {', '.join(_shared(config))}, pair.*, tracker.*; and the options of "
        "stages before it say what it reads. All of them: python -m sae_reasoning --help"
    )
    lines += textwrap.wrap(common, _WIDTH, break_on_hyphens=False)
    return "\n".join(lines)


def meant(argument: str) -> str:
    """The stage that a misspelt name may stand for, as a question; or all there are."""
    near = difflib.get_close_matches(argument, STAGES, n=1)
    return f"did you mean {near[0]}?" if near else f"choose of {', '.join(STAGES)}"


def _shared(config: Config) -> list[str]:
    """Options of the experiment itself."""
    plain = [one.name for one in fields(config) if not is_dataclass(getattr(config, one.name))]
    return [f"{name}={_shown(getattr(config, name))}" for name in plain]


def _options(prefix: str, section: Any) -> Iterator[str]:
    meanings = meanings_of(type(section))
    own = type(section).__annotations__  # Before those that many stages have.
    for one in sorted(fields(section), key=lambda one: one.name not in own):
        value = getattr(section, one.name)
        if is_dataclass(value):
            yield from _options(f"{prefix}.{one.name}", value)
            continue
        option = f"  {prefix}.{one.name}={_shown(value)}"
        meaning = _first_sentence(meanings.get(one.name, ""))
        indent = " " * _MEANING_AT
        lines = textwrap.wrap(meaning, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        if lines and len(option) < _MEANING_AT - 1:
            lines[0] = f"{option:<{_MEANING_AT}}{lines[0].strip()}"
        else:
            lines.insert(0, option)
        yield from lines


def meanings_of(config: type) -> dict[str, str]:
    """What each option of a part means, by its docstring and those that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(config.__mro__):
        _, _, attributes = inspect.cleandoc(one.__dict__.get("__doc__") or "").partition(
            "Attributes:\n"
        )
        for entry in re.split(r"\n(?=    \w)", f"\n{attributes}"):
            if named := re.match(r"    (\w+): (.*)", entry, re.DOTALL):
                found[named[1]] = " ".join(named[2].split())
    return found


def _paragraphs(config: type) -> list[str]:
    text = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")[0]
    wrapped = [textwrap.wrap(" ".join(block.split()), _WIDTH) for block in text.split("\n\n")]
    return [line for lines in wrapped for line in lines]


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[^.]\.)\s+(?=[A-Z`])", text)[0].removesuffix(".")


def _shown(value: Any) -> str:
    """A value as it is set on the command line; of a long one, the beginning."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(value)}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)
