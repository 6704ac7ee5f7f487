"""The problems that the models are asked, from wherever `traces.source` says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sae_reasoning.config import COUNTDOWN3, Config, ConfigError, TracesConfig
from sae_reasoning.edges.hub_datasets import dataset_rows
from sae_reasoning.edges.lm.load import encode_prompt, expresses, load_tokenizer
from sae_reasoning.edges.lm.same_tokens import require_shared_tokens
from sae_reasoning.edges.scoring import check_gym_task, gym_entries
from sae_reasoning.tasks.countdown.problems import draw_problems as draw_of_countdown
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search.grammar import NEW_REMARKS, REMARKS
from sae_reasoning.tasks.search.problems import draw_problems as draw_of_world
from sae_reasoning.tasks.search.world import NEW_PLACES, PLACES, Difficulty
from sae_reasoning.tasks.text.questions import DATASETS, Draw, pose_gym, pose_rows


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
        warn: Told of problems that are left out.

    Raises:
        ConfigError: There are none, or a tokenizer doesn't know their words.
    """
    part = cfg.traces
    if part.kind == "search":
        return _search_problems(cfg)
    if part.kind == COUNTDOWN3:
        return draw_of_countdown(part.num_problems, part.report_share, part.seed, part.instruction)
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


def draw_own_problems(
    cfg: Config, rows: Sequence[tuple[str, Mapping[str, Any]]], warn: Callable[[str], None]
) -> list[Problem]:
    """Problems of rows in words or numbers, at most `traces.num_problems`, drawn at random.

    Args:
        cfg: The experiment.
        rows: Of a file, or of a dataset.
        warn: Told of problems that are left out.

    Raises:
        ConfigError: A row has no question, or fewer than two problems are there.
    """
    part = cfg.traces
    draw = Draw(part.num_problems, part.report_share, part.instruction, part.seed)
    return pose_rows(rows, f"traces.source={part.source}", draw, warn)


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


def draw_search_problems(cfg: Config) -> list[Problem]:
    """Problems of the search world, as many and as large as `cfg` says."""
    return draw_of_world(
        cfg.traces.num_problems,
        cfg.traces.report_share,
        cfg.traces.seed,
        Difficulty(cfg.task.min_edges, cfg.task.max_edges),
        PLACES if cfg.task.places == "known" else NEW_PLACES,
        REMARKS if cfg.task.remarks == "known" else NEW_REMARKS,
    )
