"""The house: floors that only look down, one place per outside library, no cellar of utilities."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sae_reasoning"
FILES = sorted(PACKAGE.rglob("*.py"))

DOMAIN = {
    "tasks",
    "traces",
    "behaviours",
    "robustness",
    "steering",
    "organisms",
    "contrast",
    "elicitation",
    "report",
}
ROOMS_OF_JOBS = {"bench", "costs", "dictionaries", "pages", "readings", "rollouts", "trainings"}
"""Above edges and domain, below jobs: what brings both together."""
GROUND = {"config", "records", "stats", "texts"}
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(DOMAIN, DOMAIN | GROUND),
    "edges": {"edges"} | GROUND,
    "opening": {"opening", "edges", "tasks", "traces"} | GROUND,
    "costs": {"costs", "opening", "edges"} | DOMAIN | GROUND,
    "rollouts": {"rollouts", "edges"} | DOMAIN | GROUND,
    "dictionaries": {"dictionaries", "edges"} | DOMAIN | GROUND,
    "pages": {"pages", "edges"} | DOMAIN | GROUND,
    "readings": {"readings", "edges"} | DOMAIN | GROUND,
    "trainings": {"trainings", "rollouts", "edges"} | DOMAIN | GROUND,
    "bench": {"bench", "rollouts", "edges"} | DOMAIN | GROUND,
    "jobs": {"jobs", *ROOMS_OF_JOBS, "opening", "edges"} | DOMAIN | GROUND,
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
    "sklearn": {"edges/sentence_classifier.py"},
}
"""Where an outside library is imported; the bench alone measures the peers themselves."""
BENCH = "bench/"
FORBIDDEN = {"eval", "exec", "pickle", "dill", "joblib"}

LAZY = {"sae_lens", "transformer_lens", "wandb", "wandb_workspaces", "matplotlib", "openai", "peft"}
LAZY |= {"datasets", "math_verify", "reasoning_gym", "vllm", "sklearn"}
"""Slow to import, so imported where they're used."""

KNOWS_INSIDE = {
    "tasks.search": ("tasks/", "organisms/", "trainings/organism", "opening/", BENCH),
    "tasks.countdown": ("tasks/", "organisms/", "opening/", BENCH),
    "tasks.text": ("tasks/", "traces/", "opening/", BENCH),
}
"""Who may import a task's inside; everyone else goes through `tasks.protocol.Task`."""

ROLES = {"BASE", "RL", "MODELS", "SPLITS", "SELECT", "REPORT"}

MANY = 8
"""Parameters, `self` aside, beyond which a function's docstring says why it has as many, in a
sentence that begins with `WHY_MANY`."""
WHY_MANY = "So many parameters because"


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so when it's itself imported."""
    inside = {
        node
        for function in ast.walk(tree_of(path))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            folders = [m for m in modules if (ROOT / m.replace(".", "/")).is_dir()]
            found += [(name, node not in inside) for name in (node.module or "", *folders)]
    return found


def own_imports(path: Path) -> set[str]:
    prefix = "sae_reasoning."
    return {name.removeprefix(prefix) for name, _ in imports_of(path) if name.startswith(prefix)}


def outside_imports(path: Path) -> set[tuple[str, bool]]:
    return {(name.split(".")[0], at_once) for name, at_once in imports_of(path)}


def test_imports_only_go_down():
    strays = {}
    for path in FILES:
        rooms = {name.split(".")[0] for name in own_imports(path)}
        if not rooms <= MAY_IMPORT[room_of(path)]:
            strays[name_of(path)] = rooms - MAY_IMPORT[room_of(path)]
    assert not strays


def test_jobs_are_short_as_science_has_its_rooms():
    lengths = [len(path.read_text().splitlines()) for path in (PACKAGE / "jobs").rglob("*.py")]
    assert sum(lengths) < 6500


def test_jobs_never_import_each_other():
    """A job of several files is a folder; its files see each other."""
    for path in (PACKAGE / "jobs").rglob("*.py"):
        own = path.relative_to(PACKAGE / "jobs").parts[0].removesuffix(".py")
        seen = {name for name in own_imports(path) if name.split(".")[0] == "jobs"}
        assert all(name.split(".")[1:2] == [own] for name in seen), (path, seen)


def test_every_outside_library_has_one_place():
    strays = {
        (name_of(path), library)
        for path in FILES
        if not name_of(path).startswith(BENCH)
        for library, _ in outside_imports(path)
        if not name_of(path).startswith(tuple(ONE_PLACE.get(library, {""})))
    }
    assert not strays


def test_slow_libraries_are_imported_where_they_are_used():
    at_once = {
        (name_of(path), name) for path in FILES for name, now in outside_imports(path) if now
    }
    assert not {(user, name) for user, name in at_once if name in LAZY}


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


def test_no_file_is_longer_than_five_hundred_lines():
    lengths = {
        p: len(p.read_text().splitlines()) for p in (*FILES, *(ROOT / "tests").rglob("*.py"))
    }
    assert not {path: length for path, length in lengths.items() if length > 500}


def test_no_pickle_and_no_eval():
    strays = set()
    for path in FILES:
        calls = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        names = {function.id for function in calls if isinstance(function, ast.Name)}
        names |= {name for name, _ in outside_imports(path)}
        strays |= {(name_of(path), name) for name in names if name in FORBIDDEN}
    assert not strays


def test_the_top_level_is_what_the_readme_says():
    tracked = {"pyproject.toml", "conf", "sae_reasoning", "data", "tests", "Makefile"}
    assert tracked <= {path.name for path in ROOT.iterdir()}


def test_a_task_is_known_from_outside_by_its_protocol_alone():
    strays = set()
    for inside, friends in KNOWS_INSIDE.items():
        for path in FILES:
            seen = any(f"{name}.".startswith(f"{inside}.") for name in own_imports(path))
            if seen and not name_of(path).startswith(friends):
                strays.add(name_of(path))
    assert not strays, "go through tasks.protocol.Task, as opening.open_task gives"


def test_models_and_splits_are_named_in_records_alone():
    strays = {
        name_of(path)
        for path in FILES
        for node in tree_of(path).body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and (names_a_role(node) or spells_roles(node))
    }
    assert strays == {"records.py"}


def names_a_role(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = (name for target in targets for name in ast.walk(target))
    is_a_role = any(isinstance(n, ast.Name) and n.id.strip("_") in ROLES for n in names)
    return is_a_role and not isinstance(node.value, ast.Dict)


def spells_roles(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether what is assigned, or one of several things assigned, lists models or splits."""
    several = getattr(node.value, "elts", [])
    spelt = [
        tuple(getattr(element, "value", None) for element in value.elts)
        for value in (node.value, *several)
        if isinstance(value, (ast.Tuple, ast.List, ast.Set))
    ]
    return ("base", "rl") in spelt or ("select", "report") in spelt


def test_a_function_of_many_parameters_says_why():
    strays = {
        (name_of(path), node.name)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and num_parameters(node) > MANY
        and WHY_MANY not in " ".join((ast.get_docstring(node) or "").split())
    }
    assert not strays


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    taken = function.args
    names = [a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_room_holds_more_than_a_quarter_of_the_lines():
    lines = Counter()
    for path in FILES:
        lines[room_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    assert not {room: n for room, n in lines.items() if n > lines.total() / 4}
