"""From `conf/` and a command line's overrides to one checked `Config`.

The overrides are Hydra's: `train.sae.k=8` sets an option, `pair=local` chooses a file of a group.
Two things are added, so that a name on the command line means what one expects:

1. `experiment=NAME` names the folder of results, and applies `conf/experiment/NAME.yaml` if there
   is such an overlay.
2. `behaviours=[a,b]` sets the list, while `behaviours=search_moves` chooses a file.

Whatever can't be composed is a `ConfigError` of one line.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sae_reasoning.config import LAYER_FIELD, Config, ConfigError

_PACKAGE = Path(__file__).resolve().parent

ROOT = _PACKAGE.parent if (_PACKAGE.parent / "conf").is_dir() else _PACKAGE
"""Holds conf/ and data/: the checkout, or the package itself where a wheel was installed."""

CONF = ROOT / "conf"


def compose(overrides: Sequence[str] = ()) -> Config:
    """The config that `overrides` ask for, checked.

    Raises:
        ConfigError: An override is unknown, misspelt, of the wrong type or out of range.
    """
    parsed = [_parse(text) for text in overrides]
    for override in parsed:
        _check(override)
    kept = [override for override in parsed if override.key_or_group != "experiment"]
    experiments = [o for o in parsed if o.key_or_group == "experiment"]
    lists = [o for o in kept if o.key_or_group == "behaviours" and isinstance(o.value(), list)]
    lines = [str(override.input_line) for override in kept if override not in lists]
    if experiments:
        name = str(experiments[-1].value())
        if name in _options("experiment"):
            lines.insert(0, f"+experiment={name}")
    composed = _compose(lines)
    for override in lists:
        composed.behaviours = override.value()
    if experiments:
        composed.experiment = name
    config = _to_dataclass(composed)
    _resolve_paths(config)
    return config


def option_names() -> list[str]:
    """Every option of the config, dotted."""
    return list(_flatten(_schema()))


def group_options() -> dict[str, list[str]]:
    """Every group of `conf/` with the files to choose from."""
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    return {("train.sae" if name == "sae" else name): _options(name) for name in groups}


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def _schema() -> DictConfig:
    return OmegaConf.structured(Config)


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    for key in node:
        name = f"{prefix}{key}"
        if OmegaConf.is_dict(node._get_node(key)):
            yield from _flatten(node._get_node(key), f"{name}.")
        else:
            yield name


def _parse(text: str) -> Override:
    """One override, `option=value`."""
    if not {"'", '"'} & set(text):
        # To Hydra a bare brace begins a dictionary; the one that stands for the layer doesn't.
        text = text.replace(LAYER_FIELD, re.escape(LAYER_FIELD))
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        override = None
    if override is None or override.is_delete() or "=" not in text:
        raise ConfigError(f"{text} can't be read; write option=value, and quote special signs")
    if override.is_sweep_override():
        raise ConfigError(f"{text} names several values; give one, or [a,b] for a list")
    return override


def _check(override: Override) -> None:
    """Refuse what isn't an option, with the nearest one."""
    name = override.key_or_group
    groups = {"sae": _options("sae")} | group_options()
    if name in groups and name != "experiment" and not isinstance(override.value(), (list, dict)):
        choice = str(override.value())
        if override.is_add() or choice not in groups[name]:
            raise ConfigError(
                f"{name}={choice} is unknown; choose one of {', '.join(groups[name])}"
            )
        return
    known = option_names()
    if name in known and not override.is_add():
        return
    if name in {option.rsplit(".", depth)[0] for option in known for depth in (1, 2)} - set(known):
        part = next(option for option in known if option.startswith(f"{name}."))
        raise ConfigError(
            f"{override.input_line} sets a whole part; set its options one by one, as {part}=…"
        )
    leaf = name.rsplit(".", 1)[-1]
    near = [option for option in known if option.endswith(f".{leaf}")]
    near = near or difflib.get_close_matches(name, [*known, *groups], n=1)
    remedy = f"did you mean {near[0]}?" if near else "`--help` lists what there is"
    raise ConfigError(f"{override.input_line} sets {name}, which is no option; {remedy}")


def _compose(lines: Sequence[str]) -> DictConfig:
    ConfigStore.instance().store(name="schema", node=Config)
    # `train.sae` is how the config names it; the folder is conf/sae, mounted there.
    lines = [re.sub(r"^(train\.)?sae=", "sae@train.sae=", line) for line in lines]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose("config", overrides=list(lines))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error


def _to_dataclass(composed: DictConfig) -> Config:
    try:
        return cast(Config, OmegaConf.to_object(composed))
    except MissingMandatoryValue as error:
        option = str(error.full_key or "").strip()
        raise ConfigError(f"{option} isn't set; give {option}=…") from error
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    """The cause, in one line: what Hydra wraps around it says nothing more."""
    cause: BaseException = error
    while cause.__cause__ is not None and str(cause.__cause__).strip():
        cause = cause.__cause__
    first = (
        str(cause).strip().splitlines()[0].rstrip(".").replace("ListConfig, list or tuple", "list")
    )
    option = getattr(cause, "full_key", None)
    return f"{option}: {first}; give a value of that type" if option else f"{first}; see `--help`"


def _resolve_paths(config: Config) -> None:
    """Let relative paths in conf/ stand below the project, wherever the command is run."""
    for owner, name in (
        (config.pair.base, "path"),
        (config.pair.rl, "path"),
        (config.traces, "source"),
        (config.organism, "folder"),
    ):
        path = Path(getattr(owner, name))
        if not path.is_absolute() and not path.exists() and (ROOT / path).exists():
            setattr(owner, name, str(ROOT / path))
