"""From `conf/` and a command line's overrides to one checked `Config`, or to one for each job.

The overrides are Hydra's: `train.sae.k=8` sets an option, `pair=local` chooses a file of a group.
Some things are added, so that a name on the command line means what one expects:

1. `experiment=NAME` names the folder of results, and applies `conf/experiment/NAME.yaml` if there
   is such an overlay.
2. `behaviours=[a,b]` sets the list, while `behaviours=search_moves` chooses a file.
3. `match.other=default/NAME` also says which model reads for that run, if some file of `conf/pair/`
   names its pair so.
4. `corpus.annotated=FILE` names annotated traces as `traces.source` does; `[FILE,FILE]` are the
   second writer's and the base's (`traces.base_source`).
5. What names something is text, whatever it looks like: `pair.name=1e3` is no number. A `~` before
   a path is the user's own folder.

Whatever can't be composed is a `ConfigError` of one line.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, StringNode
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from sae_reasoning.config import DATASET_NAMES, LAYER_FIELD, Config, ConfigError, ModelConfig
from sae_reasoning.config.renamed import REMOVED, RENAMED

_PACKAGE = Path(__file__).resolve().parent

ROOT = _PACKAGE.parent if (_PACKAGE.parent / "conf").is_dir() else _PACKAGE
"""Holds conf/ and data/: the checkout, or the package itself where a wheel was installed."""

CONF = ROOT / "conf"


def compose(overrides: Sequence[str] = ()) -> Config:
    """The config that `overrides` ask for, checked.

    Raises:
        ConfigError: An override is unknown, misspelt, of the wrong type or out of range.
    """
    parsed = [_parse(text) for text in _with_corpus(overrides)]
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line} names several values; give one, or [a,b] for a list, or "
                "add -m to run a job for each"
            )
        _check(override)
    lists = [override for override in parsed if _sets_behaviours(override)]
    experiment = _experiment(parsed)
    composed = _compose(_lines(parsed))
    for override in lists:
        composed.behaviours = override.value()
    if experiment is not None:
        composed.experiment = experiment
    config = _to_dataclass(composed)
    _find_other_reader(config)
    _resolve_paths(config)
    return config


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job that a sweep asks for, as Hydra's sweeper spells them out.

    Raises:
        ConfigError: An override can't be read, or names no values that can be counted.
    """
    overrides = _with_corpus(overrides)
    with hydra_on_conf() as hydra:
        # A glob looks for files in the folder that its option is named after.
        parsed = [_parse(_at_its_folder(text), hydra.config_loader) for text in overrides]
        for override in parsed:
            if override.is_sweep_override():
                _check_sweep(override)
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [[line.replace("sae@train.sae=", "train.sae=", 1) for line in job] for job in jobs]


def hydra_lines(overrides: Sequence[str]) -> list[str]:
    """Of `overrides`, what Hydra by itself can compose."""
    return [_at_its_folder(line) for line in _lines([_parse(text) for text in overrides])]


@contextmanager
def hydra_on_conf() -> Iterator[Hydra]:
    """Hydra, set up to compose what is in `conf/`; refusals become a `ConfigError` of one line."""
    _store_schema()
    try:
        with initialize_config_dir(str(CONF), job_name="sae_reasoning", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield hydra
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error


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
def _store_schema() -> None:
    ConfigStore.instance().store(name="schema", node=Config)


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


@cache
def _texts() -> dict[str, bool]:
    """Options whose values are text, or lists of texts, and whether they may be none."""
    found = {"corpus.annotated": False}
    for option in option_names():
        node: Any = _schema()
        for part in option.split("."):
            node = node._get_node(part)
        if isinstance(node, StringNode) or getattr(node._metadata, "element_type", None) is str:
            found[option] = node._metadata.optional
    return found


def _as_text(text: str) -> str:
    """An override, quoted where Hydra would read a name as a number, as none, or not at all."""
    name, equals, value = text.partition("=")
    option = name.lstrip("+")
    if not equals or option not in _texts():
        return text
    if set('"\\($') & set(value):
        return text  # Signs of Hydra's own are for those who quote.
    if "'" in value:
        is_name = not set("[]{},") & set(value) and re.match(r"[^'].*[^']$", value)
        return f"{name}={quoted(value)}" if is_name else text
    words = re.split(r"([\[\],])", value)
    return f"{name}={''.join(word if _is_text(word, option) else quoted(word) for word in words)}"


def _is_text(word: str, option: str) -> bool:
    """Whether Hydra reads one word as the text that it is, or as the none that is meant."""
    if not word.strip() or word in "[],":
        return True
    if "~" in word:
        return False
    try:
        (read,) = OverridesParser.create().parse_overrides([f"x={word}"])
    except HydraException:
        return True
    return isinstance(read.value(), str) or (read.value() is None and _texts()[option])


def quoted(value: str) -> str:
    """A value as Hydra reads it back, whatever signs are in it."""
    # A backslash is one but before a quote, where two stand for it.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - trailing :]}'"


def _parse(text: str, loader: ConfigLoader | None = None) -> Override:
    """One override, `option=value`; `loader` knows the files that a glob may match."""
    # As `sae=…` is short for `train.sae=…`.
    text = _as_text(re.sub(r"^sae\.", "train.sae.", text))
    if not {"'", '"'} & set(text):
        # To Hydra a bare brace begins a dictionary; the one that stands for the layer doesn't.
        text = text.replace(LAYER_FIELD, re.escape(LAYER_FIELD))
    try:
        (override,) = OverridesParser.create(loader).parse_overrides([text])
    except HydraException:
        override = None
    if override is None or override.is_delete() or "=" not in text:
        name = text.partition("=")[0]
        raise ConfigError(
            f"{text} can't be read; write option=value, and quote special signs once more within "
            f"the shell's quotes, as \"{name}='…'\""
        )
    return override


def _with_corpus(overrides: Sequence[str]) -> list[str]:
    """Overrides with `corpus.annotated` spelled out as the options that it stands for."""
    found: list[str] = []
    for text in overrides:
        if not text.startswith("corpus.annotated="):
            found.append(text)
            continue
        value = _parse(text).value()
        files = [str(file) for file in value] if isinstance(value, list) else [str(value)]
        if len(files) not in (1, 2):
            raise ConfigError(f"{text} names {len(files)} files; give one, or [second's,base's]")
        options = ("traces.source", "traces.base_source")
        found += [f"{o}={quoted(file)}" for o, file in zip(options, files, strict=False)]
    return found


def _check_sweep(override: Override) -> None:
    """Refuse a sweep that isn't a list of values."""
    text, name = override.input_line, override.key_or_group
    if not override.is_discrete_sweep():
        raise ConfigError(f"{text} names no values to run; list them, as {name}=a,b or range(1,4)")
    if not list(override.sweep_string_iterator()):
        there = ", ".join(_options(name)) or "no file"
        raise ConfigError(f"{text} matches nothing; for {name} there is {there}")


def _experiment(parsed: Sequence[Override]) -> str | None:
    names = [str(o.value()) for o in parsed if o.key_or_group == "experiment"]
    return names[-1] if names else None


def _sets_behaviours(override: Override) -> bool:
    return override.key_or_group == "behaviours" and isinstance(override.value(), list)


def _lines(parsed: Sequence[Override]) -> list[str]:
    """What Hydra composes; the two things that are added to it come after."""
    kept = [o for o in parsed if o.key_or_group != "experiment" and not _sets_behaviours(o)]
    lines = [str(override.input_line) for override in kept]
    experiment = _experiment(parsed)
    return [f"+experiment={experiment}", *lines] if experiment in _options("experiment") else lines


def _at_its_folder(line: str) -> str:
    """`train.sae` is how the config names it; the folder is conf/sae, mounted there."""
    return re.sub(r"^(train\.)?sae=", "sae@train.sae=", line)


def _check_experiment(name: str) -> None:
    """Refuse a misspelt experiment, which would run all of it with the default options.

    A number or a mark in a name makes it one of its own, as in `tiny2`.
    """
    there = _options("experiment")
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.75)
    if near and name not in there and name.isalpha():
        raise ConfigError(
            f"experiment={name} is nearly {near[0]}, which has options of its own; did you mean "
            f"{near[0]}? For a folder of yours with the default options take another name, as "
            f"{name}1"
        )


def _check(override: Override) -> None:
    """Refuse what isn't an option, with the nearest one."""
    name = override.key_or_group
    if override.is_hydra_override():
        raise ConfigError(f"{override.input_line} is for several jobs; add -m, or leave it out")
    groups = {"sae": _options("sae")} | group_options()
    if name == "experiment":
        _check_experiment(str(override.value()))
    elif name in groups and not isinstance(override.value(), (list, dict)):
        choice = str(override.value())
        if override.is_add() or choice not in groups[name]:
            near = difflib.get_close_matches(choice, groups[name], n=1)
            every = ", ".join(groups[name])
            remedy = f"did you mean {near[0]}?" if near else f"choose one of {every}"
            raise ConfigError(f"{name}={choice} is unknown; {remedy}")
        return
    known = option_names()
    if name in known and not override.is_add():
        return
    if name in {option.rsplit(".", depth)[0] for option in known for depth in (1, 2)} - set(known):
        part = next(option for option in known if option.startswith(f"{name}."))
        raise ConfigError(
            f"{override.input_line} sets a whole part; set its options one by one, as {part}=…"
        )
    if name in RENAMED:
        raise ConfigError(f"{override.input_line}: {name} is now {RENAMED[name]}; use that name")
    if name in REMOVED:
        raise ConfigError(f"{override.input_line}: {name} is gone: {REMOVED[name]}; leave it out")
    leaf = name.rsplit(".", 1)[-1]
    near = [option for option in known if option.endswith(f".{leaf}")]
    near = near or difflib.get_close_matches(name, [*known, *groups], n=1)
    remedy = f"did you mean {near[0]}?" if near else "`--help` lists what there is"
    raise ConfigError(f"{override.input_line} sets {name}, which is no option; {remedy}")


def _compose(lines: Sequence[str]) -> DictConfig:
    with hydra_on_conf():
        return hydra_compose("config", overrides=[_at_its_folder(line) for line in lines])


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
    if not option:
        return f"{first}; see `--help`"
    unknown = isinstance(cause, (ConfigAttributeError, ConfigKeyError))
    return f"{option}: {first}; {'leave it out' if unknown else 'give a value of that type'}"


def _find_other_reader(config: Config) -> None:
    """The model of the pair that `match.other` names, where conf/ knows it and nothing is set."""
    match, unset = config.match, ModelConfig(path="")
    if not match.other or match.model.path:
        return
    for choice in _options("pair"):
        file = cast(DictConfig, OmegaConf.load(CONF / "pair" / f"{choice}.yaml"))
        file = file.get("pair", file)  # A file that sets layers and sizes too.
        known = OmegaConf.create({"fetch": {"folder": config.fetch.folder}, "pair": file})
        pair = cast(dict, OmegaConf.to_container(known, resolve=True))["pair"]
        if pair["name"] == match.other.rsplit("/", 1)[-1]:
            for option, value in pair[match.reader].items():
                if value != "???" and getattr(match.model, option) == getattr(unset, option):
                    setattr(match.model, option, value)


def _resolve_paths(config: Config) -> None:
    """Let `~` be the user's folder; relative paths in conf/ stand below the project, always."""
    for owner, names in _paths(config):
        for name in names.split():
            value = getattr(owner, name)
            several = [_expanded(one) for one in ([value] if isinstance(value, str) else value)]
            setattr(owner, name, several[0] if isinstance(value, str) else several)
    for owner, name in (
        (config.pair.base, "path"),
        (config.pair.rl, "path"),
        (config.match.model, "path"),
        (config.traces, "source"),
        (config.traces, "base_source"),
        (config.organism, "folder"),
        (config.pair.base, "adapter"),
        (config.pair.rl, "adapter"),
    ):
        path = Path(getattr(owner, name))
        if not path.is_absolute() and not path.exists() and (ROOT / path).exists():
            setattr(owner, name, str(ROOT / path))


def _paths(config: Config) -> list[tuple[Any, str]]:
    """Parts of the config, with those of their options that are paths."""
    models = (config.pair.base, config.pair.rl, config.match.model)
    return [
        (config, "runs"),
        *((model, "path tokenizer adapter") for model in models),
        (config.traces, "source base_source"),
        (config.train, "released"),
        (config.ablate, "reviews"),
        (config.report, "reviews"),
        (config.course, "checkpoints"),
        (config.calibrate, "output"),
        (config.organism, "folder others"),
        (config.real_pair, "folder"),
        (config.fetch, "folder"),
    ]


def _expanded(path: str) -> str:
    """A path without `~`; one behind the name of a dataset, too."""
    name, colon, folder = path.partition(":")
    if name in DATASET_NAMES:
        return f"{name}{colon}{os.path.expanduser(folder)}"
    return os.path.expanduser(path)
