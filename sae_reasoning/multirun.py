"""Many jobs from one command line: `-m`, with Hydra's sweeps and Hydra's launchers.

1. Hydra's sweeper spells out the jobs, and each is composed and checked as a command of its own.
2. Jobs that would write over each other's results are refused, and those that would read
   different things at one place. Up to here nothing has run.
3. The launcher that `hydra/launcher=` names runs them: `basic` one after another, others at the
   same time, here or elsewhere. Each runs in a process of its own, so that it is what it would be
   alone, and whatever ends it ends no other.
4. A table says how each ended.

Results go where a single run's would. Hydra's own folders stay away; what jobs print that don't run
in turn goes to `runs/.sweeps/<time>/<job>.log`.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import env_override
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode

from sae_reasoning import flow
from sae_reasoning.compose import (
    compose,
    expand,
    group_options,
    hydra_lines,
    hydra_on_conf,
    quoted,
)
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console, duration
from sae_reasoning.edges.os_errors import refused

_REMEDIES = {
    "organisms": "organism.folder=runs/organisms/{name}' 'organism.others=runs/organisms/{name}",
    "real_pair": "real_pair.folder=runs/real_pair/{name}",
    "calibrate": "experiment={name}' 'calibrate.output={name}.json",
}
"""How to keep jobs apart at stages that write to other places than the experiment's folder."""

_EXTRAS = {"submitit_slurm": "submitit", "submitit_local": "submitit", "ray": "ray"}
"""What brings a launcher along."""


@dataclass(frozen=True)
class Job:
    """One combination of a sweep.

    Attributes:
        label: What it doesn't share with the other jobs.
        overrides: All that it was asked for.
        config: The same, checked.
    """

    label: str
    overrides: tuple[str, ...]
    config: Config


class Ending(NamedTuple):
    """How a job ended: `error` is "" where all went well."""

    error: str
    seconds: float


def multirun(names: Sequence[str], arguments: Sequence[str]) -> bool:
    """Run the stages named for each combination of values; whether all went well.

    Raises:
        ConfigError: A combination is wrong, two would write to one place or read other things
            there, or there is no such launcher; nothing has run.
    """
    options = [argument for argument in arguments if _is_for_hydra(argument)]
    jobs = plan([argument for argument in arguments if argument not in options])
    refuse_clashes(flow.with_inputs(names), jobs)
    refuse_unmade_inputs(flow.with_inputs(names), jobs)
    _refuse_early(names, jobs)
    folder = Path(jobs[0].config.runs) / ".sweeps" / f"{time.strftime('%F_%H-%M-%S')}_{os.getpid()}"
    try:
        endings = _launch(_Task(tuple(names), tuple(jobs), folder, Path.cwd(), _here()), options)
    finally:
        for empty in (folder, folder.parent):
            with suppress(OSError):
                empty.rmdir()
    _tell(jobs, endings, folder)
    return not any(ending.error for ending in endings)


def plan(overrides: Sequence[str]) -> list[Job]:
    """All jobs that a sweep asks for, checked.

    Raises:
        ConfigError: One can't be composed, or its values don't go together.
    """
    combinations = expand(overrides)
    common = set(combinations[0]).intersection(*combinations)
    jobs = []
    for lines in combinations:
        label = " ".join(line for line in lines if line not in common) or " ".join(lines)
        try:
            jobs.append(Job(label, tuple(lines), compose(lines)))
        except ConfigError as error:
            if len(combinations) == 1:
                raise
            raise ConfigError(f"{error} (in the job {label})") from error
    return jobs


def refuse_clashes(stages: Sequence[str], jobs: Sequence[Job]) -> None:
    """Refuse jobs that would write different things to one place.

    Raises:
        ConfigError: There are two of them; the message says how to give each a place.
    """
    for stage in stages:
        found = _clash(stage, jobs)
        if found is not None:
            raise ConfigError(
                f"the jobs {found.one.label} and {found.other.label} would both write "
                f"{found.place}, with different settings; "
                f"{_also(stage, stages, jobs)}{_remedy(stage, [one.config for one in jobs])}"
            )


class _Clash(NamedTuple):
    one: Job
    other: Job
    place: Path


def _clash(stage: str, jobs: Sequence[Job]) -> _Clash | None:
    """Two jobs that want different things of a stage at one place, if there are any."""
    first: dict[Path, tuple[Job, Any]] = {}
    for job in jobs:
        for place, content in job.config.writes(stage).items():
            other, otherwise = first.setdefault(place.resolve(), (job, content))
            if content != otherwise:
                return _Clash(other, job, place)
    return None


def refuse_unmade_inputs(stages: Sequence[str], jobs: Sequence[Job]) -> None:
    """Refuse jobs that would read different things at one place, which none of them makes.

    Raises:
        ConfigError: There are two of them, so that at most one finds what it asks for; the message
            says what to add.
    """
    configs = [one.config for one in jobs]
    for stage in stages:
        inputs = flow.inputs_of(stage, configs[0])
        for name in inputs:
            if name in stages:
                continue
            found = _clash(name, jobs)
            if found is not None:
                raise ConfigError(
                    f"{stage} reads {name}, which the jobs {found.one.label} and "
                    f"{found.other.label} set differently, but there is one {found.place} and "
                    f"neither makes it; {_also(stage, stages, jobs)}{_remedy(name, configs)}"
                )


def _refuse_early(names: Sequence[str], jobs: Sequence[Job]) -> None:
    for job in jobs:
        try:
            flow.refuse_early(names, job.config)
        except ConfigError as error:
            raise ConfigError(f"{error} (in the job {job.label})") from error


def _also(stage: str, stages: Sequence[str], jobs: Sequence[Job]) -> str:
    """What must be made too where each job has a place of its own: there, nothing is made yet."""
    missing = [one for one in flow.inputs_of(stage, jobs[0].config) if one not in stages]
    return f"name {' '.join(missing)} too, before {stage}, and " if missing else ""


def _remedy(stage: str, configs: Sequence[Config]) -> str:
    """An option that gives each config a place of its own."""
    if stage == "bench":
        return "run them one by one"
    name = "_".join(f"{o.rpartition('.')[2]}${{{o}}}" for o in _telling_apart(configs))
    if not name:
        return "sweep experiment= or pair= instead"
    remedy = _REMEDIES.get(stage, "experiment={name}")
    if stage not in _REMEDIES and configs[0].experiment in group_options()["experiment"]:
        # Another experiment wouldn't have the overlay.
        remedy = f"pair.name={configs[0].pair.name}_{{name}}"
    return f"give each a place of its own, as by '{remedy.format(name=name)}'"


def _telling_apart(configs: Sequence[Config]) -> list[str]:
    """Options, few of them, whose values tell the configs apart and can be part of a name."""
    flat = [dict(_flatten(asdict(config))) for config in configs]
    chosen: list[str] = []
    kinds = 1
    for option in flat[0]:
        found = {tuple(str(values.get(o)) for o in (*chosen, option)) for values in flat}
        if len(found) > kinds and not any(os.sep in names[-1] for names in found):
            chosen.append(option)
            kinds = len(found)
    return chosen


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_for_hydra(argument: str) -> bool:
    return argument.lstrip("+").startswith(("hydra.", "hydra/"))


def _launch(task: "_Task", options: Sequence[str]) -> list[Ending]:
    """Run all jobs through Hydra's launcher.

    Raises:
        ConfigError: There is no such launcher, or it failed as a whole.
    """
    with hydra_on_conf() as hydra:
        for text in options:
            _check_option(text, hydra.config_loader.get_group_options("hydra/launcher"))
        config = hydra.compose_config(
            "config",
            [
                *options,
                f"hydra.sweep.dir={quoted(str(task.folder))}",
                "hydra.sweep.subdir=.",
                "hydra.output_subdir=null",
                "hydra/job_logging=none",
                "hydra/hydra_logging=none",
            ],
            run_mode=RunMode.MULTIRUN,
        )
        name = config.hydra.runtime.choices["hydra/launcher"]
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(hydra.config_loader, Callbacks(config)),
            task_function=task,
            config=config,
        )
        return _launch_all(launcher, name, task)


def _launch_all(launcher: Launcher, name: str, task: "_Task") -> list[Ending]:
    lines = [hydra_lines(job.overrides) for job in task.jobs]
    if name != "basic":
        Console().say(f"{len(lines)} jobs by {name}; what they print goes to {task.folder}")
    try:
        returned = launcher.launch(lines, initial_job_idx=0)
        return [one.return_value for one in returned]
    except OSError as error:
        raise ConfigError(refused(error, task.jobs[0].config)) from error
    except Exception as error:  # Whatever a cluster, a pool or a plugin may come to.
        raise ConfigError(
            f"hydra/launcher={name} failed ({type(error).__name__}: {_first_line(error)}); what "
            "its jobs have made stands, and the same command goes on from there"
        ) from error


def _check_option(text: str, launchers: Sequence[str]) -> None:
    """Refuse what isn't about the launcher, or names none."""
    override = OverridesParser.create().parse_override(text)
    if override.is_sweep_override():
        raise ConfigError(f"{text} names several values, but all jobs have one launcher; give one")
    name, value = override.key_or_group, override.value()
    if name == "hydra/launcher":
        if value not in launchers:
            raise ConfigError(
                f"{text} isn't installed; choose one of {', '.join(launchers)}, or install it, as "
                f"by pip install 'sae_reasoning[{_EXTRAS.get(str(value), 'joblib')}]'"
            )
    elif not name.startswith("hydra.launcher."):
        raise ConfigError(
            f"{text} can't be set here, where results have folders of their own; set "
            "hydra/launcher=… and hydra.launcher.…=…"
        )


def _here() -> tuple[str, int]:
    """This process, of all machines."""
    return socket.gethostname(), os.getpid()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


@dataclass(frozen=True)
class _Task:
    """What a launcher calls for each job, wherever it calls it.

    Attributes:
        names: Of the stages.
        jobs: All of them; Hydra says which one is meant.
        folder: Of logs.
        place: The working directory, which other machines must see, too.
        launched_by: The process that the launcher was called in.
    """

    names: tuple[str, ...]
    jobs: tuple[Job, ...]
    folder: Path
    place: Path
    launched_by: tuple[str, int]

    def __call__(self, _: object) -> Ending:
        """Run the job that is Hydra's now."""
        number = HydraConfig.get().job.num
        job = self.jobs[number]
        title = f"job {number + 1} of {len(self.jobs)}: {job.label}"
        # One job at a time may have the terminal.
        log = None if _here() == self.launched_by else log_of(self.folder, number)
        if log is not None:
            # Workers of a cluster begin wherever their node was started.
            os.chdir(self.place)
        console = Console()
        console.say(f"\n==== {title}" if log is None else f"{title}: started, see {log}")
        started = time.monotonic()
        error = run_apart(self.names, job, log)
        seconds = time.monotonic() - started
        if log is not None:
            console.say(f"{title}: {'failed' if error else 'ok'} after {duration(seconds)}")
        return Ending(error, seconds)


def log_of(folder: Path, number: int) -> Path:
    """Where a job prints that doesn't have the terminal; jobs are counted from 1 for people."""
    return folder / f"{number + 1}.log"


def run_apart(names: Sequence[str], job: Job, log: Path | None) -> str:
    """Run stages in a process of their own; what went wrong, or ""."""
    flow.set_environment(job.config)
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's workers are started in a way that only they know; their children fail over it.
        multiprocessing.set_start_method("forkserver", force=True)
    processes = multiprocessing.get_context("forkserver")
    # One server for all jobs that this process runs: it imports what is slow once.
    processes.set_forkserver_preload([flow.module_of(name) for name in flow.with_inputs(names)])
    # By itself it would look for modules in the working directory first.
    path = os.pathsep.join(filter(None, sys.path))
    with env_override({"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}):
        forkserver.ensure_running()
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=_run_here, args=(tuple(names), job, log, sender))
    process.start()
    sender.close()
    try:
        with suppress(EOFError):  # It died before it could say anything.
            return receiver.recv()
        process.join()
        return _cause(process.exitcode or 0)
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()
        receiver.close()


def _run_here(names: Sequence[str], job: Job, log: Path | None, sender: Connection) -> None:
    if log is not None:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sender.send(flow.run(names, job.config, job.overrides))
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {_first_line(error)}")


def _cause(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed, as happens when memory runs out; run fewer at a time, or smaller ones"
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _tell(jobs: Sequence[Job], endings: Sequence[Ending], folder: Path) -> None:
    """Print how each job ended."""
    console = Console()
    rows = [
        [number, job.label, "failed" if ending.error else "ok", duration(ending.seconds)]
        for number, (job, ending) in enumerate(zip(jobs, endings, strict=True), start=1)
    ]
    console.table("jobs", ["job", "options", "ended", "after"], rows)
    for number, ending in enumerate(endings):
        log = log_of(folder, number)
        if ending.error:
            where = f" (see {log})" if log.exists() else ""
            console.warn(f"job {number + 1} failed: {ending.error}{where}")
