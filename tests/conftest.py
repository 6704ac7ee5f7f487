"""What every test stands on: no network, one thread, tiny real models that all processes share.

`SHAPES=1` checks shapes and types of the rooms that hold tensors at run time. Nothing heavy is
imported here, as the process that hands out the tests has no use for it.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

# Before any library reads them: tests never reach for a hub, a server or the user's folders.
_SCRATCH = tempfile.mkdtemp(prefix="sae_reasoning_tests_")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="passive",  # Threads that spin on a busy machine cost ten times the work.
    SAE_REASONING_CACHE=_SCRATCH,
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    WANDB_ERROR_REPORTING="false",
    **{f"WANDB_{name}_DIR": _SCRATCH for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")},
)
os.environ.pop("WANDB_API_KEY", None)

import atexit  # noqa: E402
import shutil  # noqa: E402

from jaxtyping import install_import_hook  # noqa: E402

SHAPES = os.environ.get("SHAPES", "0") != "0"
if SHAPES:
    # The organisms' world is plain Python called a million times.
    install_import_hook(
        [f"sae_reasoning.{room}" for room in ("behaviours", "edges", "jobs", "stats", "steering")],
        "shape_checker.checked",
    )

import pytest  # noqa: E402
from cpu_limit import CpuLimit  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import settings  # noqa: E402
from projects import STAGES, Project, tiny_experiment  # noqa: E402

from sae_reasoning.config import Config, ModelConfig, PairConfig  # noqa: E402

atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", type=int, default=0, help="show the N with the most CPU seconds")


def pytest_configure(config: pytest.Config) -> None:
    limit = CpuLimit(num_shown=config.getoption("--cpu"), is_enforced=not SHAPES)
    config.pluginmanager.register(limit, "cpu_limit")


def pytest_sessionstart(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and not reporter.isatty:
        session.config.get_terminal_writer().fullwidth = 120  # A log of some thirty lines.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A process for each core; more than eight would wait for the longest file."""
    may_use = getattr(os, "sched_getaffinity", None)
    return min(8, len(may_use(0)) if may_use else os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files first; while one process makes the project, others have something else to do."""
    if not hasattr(config, "workerinput"):
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    on_project = [path for path, own in files.items() if any(map(_needs_project, own))]
    jobs = [path for path in files if path.parent.name == "jobs" and path not in on_project]
    order = dict.fromkeys([*on_project[:1], *jobs, *on_project[1:], *files])
    items[:] = [item for path in order for item in files[path]]


def _needs_project(item: pytest.Item) -> bool:
    return "made_project" in getattr(item, "fixturenames", ())


def _shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process makes for all; nobody sees it before it's whole."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # A worker's own folder is in that of the session.
    folder, is_whole = root / name, root / f"{name}.whole"
    with FileLock(root / f"{name}.lock"):
        if not is_whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            is_whole.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two random Llamas of three blocks that speak the organisms' words, saved as folders."""
    from tiny_models import save_tiny

    return _pair("tiny", "tiny", _shared(tmp_path_factory, "tiny", save_tiny))


@pytest.fixture(scope="session")
def tiny_neox_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two random GPT-NeoXes of three blocks with a byte-pair tokenizer, saved as folders."""
    from tiny_models import save_tiny_neox

    return _pair("tiny_neox", "tiny", _shared(tmp_path_factory, "tiny_neox", save_tiny_neox))


@pytest.fixture(scope="session")
def talking_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two stages of one short training: they babble, with behaviours in it, and find nothing."""
    from tiny_models import save_talking

    return _pair("talking", "talking", _shared(tmp_path_factory, "talking", save_talking))


@pytest.fixture(scope="session")
def sums_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two stages of one short training on sums in plain words, with a chat template."""
    from tiny_models import save_sums

    return _pair("sums", "sums", _shared(tmp_path_factory, "sums", save_sums))


@pytest.fixture(scope="session")
def qwen_sums_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """The same of Qwen2's shape, with its chat template and two tokens that end a text."""
    from tiny_models import save_qwen_sums

    return _pair("qwen_sums", "sums", _shared(tmp_path_factory, "qwen_sums", save_qwen_sums))


def _pair(name: str, models: str, folder: Path) -> PairConfig:
    base, rl = (
        ModelConfig(path=str(folder / f"{models}_{one}"), chat_template=models == "sums")
        for one in ("base", "rl")
    )
    pair = PairConfig(name=name, base=base, rl=rl)
    _PAIRS.append((pair, deepcopy(pair)))
    return pair


_PAIRS: list[tuple[PairConfig, PairConfig]] = []
"""Pairs that all tests of a worker share, each with what it was when it was made."""


@pytest.fixture(autouse=True)
def shared_pairs_stay_as_they_are() -> Iterator[None]:
    """Fail a test that changes a pair which others read; it should take a copy."""
    yield
    changed = [pair.name for pair, made in _PAIRS if pair != made]
    for pair, made in _PAIRS:
        pair.__dict__.update(deepcopy(made).__dict__)
    assert not changed, f"the test changed {', '.join(changed)}, which others read; copy it"


@pytest.fixture(scope="session")
def made_project(talking_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which all stages have been run; tests copy it before they touch it."""
    options = (
        "experiment=tiny",
        "pair=local",
        "pair.name=talking",
        f"pair.base.path={talking_pair.base.path}",
        f"pair.rl.path={talking_pair.rl.path}",
        "tracker=none",
        "device=cpu",
        "threads=1",
        "verbose=true",
        "traces.num_problems=16",
        "traces.base_samples=4",
        "traces.max_new_tokens=72",
    )

    def run_all(folder: Path) -> None:
        outcome = Project(folder, options).run(*STAGES)
        assert outcome.code == 0, outcome.output

    return Project(_shared(tmp_path_factory, "project", run_all), options)


@pytest.fixture(scope="session")
def made_hybrid(made_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `hybrid` has been run too; nobody touches it."""

    def run_hybrid(folder: Path) -> None:
        outcome = made_project.copy(folder, "traces", "train", "rank").run("hybrid")
        assert outcome.code == 0, outcome.output

    folder = _shared(tmp_path_factory, "hybrid", run_hybrid)
    return Project(folder, made_project.options)


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_pair: PairConfig) -> Config:
    """An experiment of seconds on the tiny pair, with results below the test's own folder."""
    return tiny_experiment(tiny_pair, tmp_path)
