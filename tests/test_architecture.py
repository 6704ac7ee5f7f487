"""The house: floors that only look down, one place per outside library, no cellar of utilities."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sae_reasoning"
FILES = sorted(PACKAGE.rglob("*.py"))

DOMAIN = {"traces", "behaviours", "steering", "organisms", "contrast", "elicitation", "report"}
GROUND = {"config", "records", "stats", "texts"}
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(DOMAIN, DOMAIN | GROUND),
    "edges": {"edges"} | GROUND,
    "jobs": {"jobs", "edges"} | DOMAIN | GROUND,
    "compose": GROUND,
    "flow": {"config", "edges"},
    "multirun": {"compose", "config", "edges", "flow"},
    "help": {"compose", "config", "flow"},
    "__main__": {"compose", "config", "flow", "help", "multirun"},
    "__init__": set(),
}
"""What a floor or room may import of the package; a job imports no other job."""

ONE_PLACE = {
    "transformers": {"edges/lm"},
    "tokenizers": {"edges/lm"},
    "peft": {"edges/lm"},
    "accelerate": {"edges/lm"},
    "h5py": {"edges/activation_store.py"},
    "sae_lens": {"edges/sae_checkpoint.py", "edges/sae_release.py"},
    "wandb": {"edges/tracker.py", "edges/workspace.py"},
    "wandb_workspaces": {"edges/workspace.py"},
    "pyarrow": {"edges/tables.py"},
    "hydra": {"compose.py", "multirun.py"},
    "omegaconf": {"compose.py"},
    "fcntl": {"edges/lock.py"},
    "tqdm": {"edges/console.py"},
    "matplotlib": {"edges/plots.py"},
    "threadpoolctl": {"edges/workers.py"},
    "openai": {"edges/endpoint.py"},
    "datasets": {"edges/hub_datasets.py"},
    "math_verify": {"edges/scoring.py"},
    "reasoning_gym": {"edges/scoring.py"},
    "vllm": {"edges/lm"},
    "jinja2": {"edges/pages.py"},
    "markupsafe": {"edges/pages.py"},
}
"""Where an outside library is imported; the bench alone measures the peers themselves."""
BENCH = "jobs/bench/"

LAZY = {"sae_lens", "transformer_lens", "wandb", "wandb_workspaces", "matplotlib", "openai", "peft"}
LAZY |= {"datasets", "math_verify", "reasoning_gym", "vllm"}
"""Slow to import, so imported where they're used."""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so when it's itself imported."""
    tree = ast.parse(path.read_text())
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module or "", node not in inside
            for alias in node.names:
                if (PACKAGE.parent / f"{node.module}.{alias.name}".replace(".", "/")).is_dir():
                    yield f"{node.module}.{alias.name}", node not in inside


def own_imports(path: Path) -> set[str]:
    prefix = "sae_reasoning."
    return {name.removeprefix(prefix) for name, _ in imports_of(path) if name.startswith(prefix)}


def outside_imports(path: Path) -> set[tuple[str, bool]]:
    return {(name.split(".")[0], at_once) for name, at_once in imports_of(path)}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_go_down(path: Path):
    rooms = {name.split(".")[0] for name in own_imports(path)}
    assert rooms <= MAY_IMPORT[room_of(path)], f"{name_of(path)} imports {rooms}"


def test_jobs_never_import_each_other():
    """A job of several files is a folder; its files see each other."""
    for path in (PACKAGE / "jobs").rglob("*.py"):
        own = path.relative_to(PACKAGE / "jobs").parts[0].removesuffix(".py")
        seen = {name for name in own_imports(path) if name.split(".")[0] == "jobs"}
        assert all(name.split(".")[1:2] == [own] for name in seen), (path, seen)


@pytest.mark.parametrize("library", ONE_PLACE)
def test_every_outside_library_has_one_place(library: str):
    users = {name_of(p) for p in FILES if library in {name for name, _ in outside_imports(p)}}
    users = {user for user in users if not user.startswith(BENCH)}
    strays = {u for u in users if not any(u.startswith(place) for place in ONE_PLACE[library])}
    assert not strays


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_slow_libraries_are_imported_where_they_are_used(path: Path):
    assert not {name for name, at_once in outside_imports(path) if at_once} & LAZY


def test_no_import_goes_in_a_circle():
    arrows = {}
    for path in FILES:
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        arrows[module] = own_imports(path) - {module}
    while leaves := {m for m, targets in arrows.items() if not targets & set(arrows)}:
        for module in leaves:
            del arrows[module]
    assert not arrows, f"in a circle, or on the way to one: {sorted(arrows)}"


def test_rooms_see_each_other_one_way():
    arrows = {
        (room_of(path), name.split(".")[0])
        for path in FILES
        for name in own_imports(path)
        if room_of(path) != name.split(".")[0]
    }
    assert not {(a, b) for a, b in arrows if (b, a) in arrows}


def test_there_is_no_room_for_odds_and_ends():
    odd = {"utils", "util", "helpers", "helper", "common", "misc", "core", "shared"}
    assert not {path for path in FILES if odd & set(path.with_suffix("").parts[-3:])}


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=str)
def test_no_file_is_longer_than_five_hundred_lines(path: Path):
    assert len(path.read_text().splitlines()) <= 500


def test_no_pickle_and_no_eval():
    for path in FILES:
        tree = ast.parse(path.read_text())
        names = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and is_name(n.func)}
        assert not {"eval", "exec"} & names
        assert not {"pickle", "dill", "joblib"} & {name for name, _ in outside_imports(path)}


def is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def test_the_top_level_is_what_the_readme_says():
    tracked = {"pyproject.toml", "conf", "sae_reasoning", "data", "tests", "Makefile"}
    assert tracked <= {path.name for path in ROOT.iterdir()}
