"""The problems that the models are asked, from wherever `traces.source` says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sae_reasoning.config import Config, ConfigError, TracesConfig
from sae_reasoning.edges.hub_datasets import dataset_rows
from sae_reasoning.edges.lm.load import encode_prompt, expresses, load_tokenizer
from sae_reasoning.edges.lm.same_tokens import require_shared_tokens
from sae_reasoning.edges.scoring import check_gym_task, gym_entries
from sae_reasoning.opening import draw_own_problems, draw_search_problems, open_task
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.questions import DATASETS, Draw, pose_gym


def check_source(part: TracesConfig) -> None:
    """Refuse a source that isn't there, or a task that reasoning-gym doesn't have.

    Raises:
        ConfigError: It's the one or the other, or reasoning-gym isn't installed.
    """
    part.require_source()
    if part.kind == "gym":
        for task in _gym_tasks(part):
            check_gym_task(task)


def _gym_tasks(part: TracesConfig) -> list[str]:
    return list(dict.fromkeys(filter(None, part.source.partition(":")[2].split(","))))


def draw_problems(
    cfg: Config, rows: Sequence[tuple[str, Mapping[str, Any]]], warn: Callable[[str], None]
) -> list[Problem]:
    """As many problems as `traces.num_problems`, in words that every tokenizer knows.

    Args:
        cfg: The experiment.
        rows: Of the file of problems, where `traces.source` names one.
        warn: Hears of problems that are left out.

    Raises:
        ConfigError: There are none, or a tokenizer doesn't know their words.
    """
    part = cfg.traces
    if part.kind == "search":
        return _search_problems(cfg)
    if part.kind == "gym":
        tasks = _gym_tasks(part)
        each = -(-part.num_problems // len(tasks))
        # Some tasks make a problem twice, so a few more than are wanted.
        entries = {task: gym_entries(task, each + each // 4 + 2, part.seed) for task in tasks}
        draw = Draw(part.num_problems, part.report_share, part.instruction, part.seed)
        return pose_gym(entries, draw)
    if part.kind == "dataset":
        rows = list(_dataset_rows(cfg))
    return draw_own_problems(cfg, rows, warn)


def _dataset_rows(cfg: Config) -> Sequence[tuple[str, Mapping[str, Any]]]:
    name, _, folder = cfg.traces.source.partition(":")
    known = DATASETS[name]
    return list(
        dataset_rows(
            f"traces.source={cfg.traces.source}",
            folder or known.path,
            known.name,
            cfg.traces.dataset_split or known.split,
        )
    )


def _search_problems(cfg: Config) -> list[Problem]:
    known = open_task(cfg).behaviours
    missing = set(cfg.behaviours) - known if known is not None else set()
    if missing and cfg.traces.annotator in ("auto", "grammar"):
        raise ConfigError(
            f"behaviours={cfg.behaviours} names {min(missing)}, which the search world's grammar "
            f"doesn't mark; choose of {', '.join(sorted(known or ()))}"
        )
    problems = draw_search_problems(cfg)
    for model in cfg.pair.readers.values():
        if not expresses(load_tokenizer(model), problems[0].prompt):
            raise ConfigError(
                f"the tokenizer of {model.named} doesn't know every word of the problems of "
                f"task.places={cfg.task.places}; use task.places=known, or a tokenizer of "
                "pieces"
            )
    first, models = problems[0].prompt, cfg.pair.readers.values()
    require_shared_tokens(
        cfg.pair, (encode_prompt(load_tokenizer(model), first) for model in models)
    )
    return problems
