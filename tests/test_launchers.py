"""A cache split among workers of each launcher is, byte for byte, what one process writes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from sae_reasoning.config import PairConfig

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[1]
SPLIT = ("-m", "cache.num_shards=2", "cache.shard=0,1")

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    is_there = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package}")
    return pytest.mark.skipif(
        not is_there, reason=f"{package} isn't installed; pip install 'sae_reasoning[{extra}]'"
    )


class Folder:
    """A folder in which commands are run, each in a process of its own."""

    def __init__(self, path: Path, pair: PairConfig) -> None:
        self.path = path
        self.results = path / "runs" / "split" / "tiny"
        self._options = [
            "experiment=split",
            "pair=local",
            "pair.name=tiny",
            f"pair.base.path={pair.base.path}",
            f"pair.rl.path={pair.rl.path}",
            "layers=[0,1]",
            "tracker=none",
            "device=cpu",
            "threads=1",
            "traces.num_problems=8",
            "traces.base_samples=1",
            "traces.rl_samples=1",
            "traces.max_new_tokens=16",
            "cache.shard_tokens=64",
        ]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sae_reasoning", *arguments, *self._options],
            cwd=self.path,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def cached(self) -> dict[str, bytes]:
        folder = self.results / "cache"
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.h5")}


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def by_one(tiny_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Cached by a single process."""
    folder = Folder(tmp_path_factory.mktemp("one"), tiny_pair)
    folder.run("traces", "cache")
    assert len(folder.cached()) >= 4 * 4
    return folder


@pytest.fixture
def folder(by_one: Folder, tiny_pair: PairConfig, tmp_path: Path) -> Folder:
    """With the same traces, not cached yet."""
    new = Folder(tmp_path, tiny_pair)
    shutil.copytree(by_one.results / "traces", new.results / "traces")
    return new


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Ray cluster of two nodes with a worker each."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    assert process.stdout
    yield process.stdout.readline().strip()
    process.communicate("", timeout=60)


def check(folder: Folder, by_one: Folder, shown: str) -> None:
    assert folder.cached() == by_one.cached()
    assert not list(folder.results.glob("cache.partial-*"))
    assert shown.count("  ok  ") == 2
    logs = sorted((folder.path / "runs" / ".sweeps").glob("*/[12].log"))
    assert "wrote" in "".join(log.read_text() for log in logs)


@needs("hydra_joblib_launcher", "joblib")
def test_by_joblib(folder: Folder, by_one: Folder):
    shown = folder.run("cache", *SPLIT, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    check(folder, by_one, shown)


@needs("hydra_submitit_launcher", "submitit")
def test_by_submitit(folder: Folder, by_one: Folder):
    shown = folder.run("cache", *SPLIT, "hydra/launcher=submitit_local")
    check(folder, by_one, shown)


@needs("hydra_ray_launcher", "ray")
def test_by_a_running_ray_cluster_of_two_nodes(folder: Folder, by_one: Folder, cluster: str):
    shown = folder.run(
        "cache",
        *SPLIT,
        "hydra/launcher=ray",
        f"hydra.launcher.ray.init.address={cluster}",
        "+hydra.launcher.ray.init.object_store_memory=null",
        "+hydra.launcher.ray.remote.num_cpus=1",
    )
    check(folder, by_one, shown)
