"""Calibrate the verdict: run it on pairs of organisms, and count how often it is right.

Pairs judged before, under the same thresholds and options, stay in the file and are counted with
the new ones, so that seeds may be made, judged and deleted one by one.

Every pair is run by the command line, as any user would run it. The truth was measured when the
organisms were made, and is read after the verdict is given.
"""

import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, read_json, write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.schema import read_artifact
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms.cells import absent_behaviour
from sae_reasoning.organisms.pairs import OrganismPair, made_pairs
from sae_reasoning.report.calibration import Cell, calibration, cells_of, confusion_table, shown

_STAGES = ("traces", "contrast", "report")


def calibrate(cfg: Config, *, tracker: Tracker, console: Console) -> None:
    """Make `calibrate.output`, from the verdicts on every pair named."""
    own = cfg.calibrate
    pairs = made_pairs(own, cfg.organism)
    settings = _settings(cfg)
    earlier, judged = _earlier(Path(own.output), settings, {pair.name for pair in pairs})
    console.plan(
        "calibrate",
        {
            "pairs": f"{len(pairs)}: {', '.join(own.pairs)}",
            "families": ", ".join(own.families),
            "seeds": ", ".join(f"{seed} (lacks {absent_behaviour(seed)})" for seed in own.seeds),
            "judged before": ", ".join(dict.fromkeys(cell.pair for cell in earlier)) or "none",
        },
    )
    cells = list(earlier)
    with console.progress(len(pairs), "pairs", "verdicts") as bar:
        for pair in pairs:
            command, folder = _command(cfg, pair), Path(cfg.runs) / cfg.calibration / pair.name
            truths = read_json(pair.rl / "truth.json")
            cells += cells_of(pair, _verdicts(pair, command, folder), truths)
            manifest = Manifest.read(folder / "contrast")
            judged[pair.name] = {
                "command": shlex.join(["python", *command]),
                "revision": manifest.git_revision if manifest else None,
                "versions": ", ".join(
                    f"{stage} {cfg.settings(stage)['version']}" for stage in ("contrast", "report")
                ),
            }
            bar.advance(1)
    found = calibration(cells, own.bootstrap, own.seed)
    output = Path(own.output)
    write_json(output, settings | {"judged": judged, "calibration": found})
    columns, rows = confusion_table(found)
    console.table("verdicts (columns) by measured truth (rows), cells", columns, rows)
    console.say(f"  right over all: {shown(found.right['all'])}")
    console.say(f"  deployed judged created, or the reverse: {shown(found.confused)}")
    console.say(f"  against the recipe, unclear truths too: {shown(found.against_recipe)}")
    console.say(f"  truth unclear, so not counted: {found.unclear}")
    console.say(f"  wrote {output}")


def _settings(cfg: Config) -> dict[str, Any]:
    """Options that a verdict depends on; only pairs judged under the same are counted together."""
    return {
        "layers": cfg.layers,
        "margins": cfg.report.margins,
        "contrast": asdict(cfg.contrast),
        "task": asdict(cfg.task),
        "traces": asdict(cfg.traces),
    }


def _earlier(
    output: Path, settings: dict[str, Any], again: set[str]
) -> tuple[list[Cell], dict[str, dict[str, str | None]]]:
    """Cells in the file of pairs that aren't judged again; by pair, its command and revision.

    Raises:
        ConfigError: They were judged under other thresholds or options.
    """
    if not output.exists():
        return [], {}
    content = read_json(output)
    for name, value in settings.items():
        if not _agrees(content.get(name), value):
            raise ConfigError(
                f"calibrate.output={output} holds verdicts under other options ({name} differs), "
                "which can't be counted with these; name another file, or delete it"
            )
    cells = [Cell(**cell) for cell in content["calibration"]["cells"]]
    return [cell for cell in cells if cell.pair not in again], content.get("judged", {})


def _agrees(before: Any, now: Any) -> bool:
    """Whether options are the same, as far as they existed before."""
    if not isinstance(before, dict):
        return bool(before == now)
    return all(name in now and now[name] == value for name, value in before.items())


def _command(cfg: Config, pair: OrganismPair) -> list[str]:
    """Arguments of python that judge one pair."""
    options = [
        *pair.options,
        f"experiment={cfg.calibration}",
        f"runs={cfg.runs}",
        f"device={cfg.device}",
        f"threads={cfg.threads}",
        "tracker=none",
        *_options(cfg, pair.seed),
    ]
    return ["-m", "sae_reasoning", *_STAGES, *options]


def _verdicts(pair: OrganismPair, command: list[str], folder: Path) -> list[dict]:
    """The verdicts on one pair, by the command line where they aren't up to date.

    Raises:
        ConfigError: The run failed; its last line says why.
    """
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ConfigError(f"{pair.name} failed ({last}); run it by itself to see more")
    return read_artifact(folder / "report" / "verdict.json")["verdicts"]


def _options(cfg: Config, seed: int) -> list[str]:
    """Every option of the stages run, as this command has it; each seed has problems of its own."""
    parts: dict[str, Any] = {"task": cfg.task, "traces": cfg.traces}
    parts |= {"contrast": cfg.contrast, "report": cfg.report}
    found = [f"layers=[{','.join(map(str, cfg.layers))}]"]
    for part, section in parts.items():
        for name, value in asdict(section).items():
            if name == "reviews":  # Of this pair's latents.
                continue
            if isinstance(value, dict):  # Cues of annotators, which come with the behaviours.
                continue
            own = cfg.traces.seed + seed if (part, name) == ("traces", "seed") else value
            text = f"[{','.join(map(str, own))}]" if isinstance(own, list) else own
            found.append(f"{part}.{name}={text}")
    return found
