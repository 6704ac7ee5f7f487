"""What stages are made from: models, files that options name, and other stages.

Nothing heavy is imported for models in folders, so that a stage that is up to date can say so at
once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from sae_reasoning.config import VERSIONS, Config, ConfigError
from sae_reasoning.edges.artifacts import (
    Manifest,
    MissingInput,
    digest,
    fingerprint_files,
    require_stage,
)
from sae_reasoning.edges.lm.identity import identify

CALIBRATION = "calibration"
OPTIONAL = ("traces", "cache", "train", "rank", "match", "ablate", "hybrid", "elicit")
"""Stages that the report shows where they were run, besides the contrast."""

_READ: dict[str, tuple[str, ...]] = {
    "export": ("traces",),
    "cache": ("traces",),
    "train": ("traces", "cache"),
    "rank": ("traces", "cache", "train"),
    "match": ("traces", "cache", "train", "rank"),
    "ablate": ("traces", "cache", "train", "rank"),
    "contrast": ("traces",),
    "course": ("contrast",),
    "hybrid": ("traces", "train", "rank"),
    "elicit": ("traces",),
    "report": ("contrast",),
}
KNOWN = frozenset(_READ).union({"traces"}) - {"course"}
"""Stages all of whose inputs `inputs_of` knows."""

_MODELS_UNREAD = ("export", "report")
"""Stages to which models matter by what was made from them only."""


def stages_read(stage: str, config: Config) -> tuple[str, ...]:
    """The stages that one can't be made without, of the same experiment and pair, in order."""
    found = _READ.get(stage, ())
    if stage == "ablate" and config.train.readers == "crosscoder":
        return tuple(name for name in found if name != "rank")  # Which refuses crosscoders.
    if stage == "contrast" and "onset-predictors" in config.contrast.vectors:
        return (*found, "train", "rank")
    return found


def outside_inputs(cfg: Config) -> dict[str, str]:
    """Fingerprints of the models and of every file that an option names, as they are now.

    Models stand under what they're called, their tokenizers under `<model>_tokenizer`, files under
    their options. A file that isn't there is left out: what was made from it can't be told to be
    stale, and who reads it will say that it's missing.
    """
    which = {name: identify(model) for name, model in cfg.pair.readers.items()}
    found = {name: one.fingerprint for name, one in which.items()}
    found |= {f"{name}_tokenizer": one.tokenizer_fingerprint for name, one in which.items()}
    for option, path in cfg.files.items():
        if path.exists():
            found[option] = fingerprint_files(path, "**/*") if path.is_dir() else digest(path)
    return found


def inputs_of(stage: str, cfg: Config) -> dict[str, str]:
    """Fingerprints of all that a stage is made from, each stage among it current and whole.

    Raises:
        MissingInput: A stage that it reads isn't there, or was made from other things than now.
        ConfigError: A model isn't there.
    """
    assert stage in KNOWN, stage
    now = outside_inputs(cfg)
    found = {} if stage in _MODELS_UNREAD else {name: now[name] for name in cfg.pair.readers}
    found |= {name: require(name, cfg, now).fingerprint for name in stages_read(stage, cfg)}
    found |= {option: value for option, value in now.items() if option.startswith(f"{stage}.")}
    return found | _BESIDE.get(stage, _nothing)(cfg, now)


def require(stage: str, cfg: Config, now: Mapping[str, str]) -> Manifest:
    """The manifest of a stage of the same run; `require_stage` says what is refused.

    Args:
        stage: Which.
        cfg: The run.
        now: Of `outside_inputs`.
    """
    return require_stage(cfg.folder, cfg.place(stage).name, cfg.settings(stage), now)


def require_other(cfg: Config, stage: str) -> Manifest:
    """A stage of the run whose dictionary is looked in, whatever options made it.

    Raises:
        ConfigError: No run is named.
        MissingInput: The stage isn't there, or isn't of the present version.
    """
    if not cfg.match.other:
        raise ConfigError(
            "match.other is empty; name the run whose dictionary to look in, as "
            "match.other=default/organism_created_neox"
        )
    root = Path(cfg.runs) / cfg.match.other
    made = Manifest.read(root / stage)
    if made is None:
        raise MissingInput(
            f"match.other={cfg.match.other}: {root / stage} is missing; run `make {stage}` with "
            "that experiment and pair first"
        )
    return require_stage(root, stage, made.config | {"version": VERSIONS[stage]}, {})


def require_matches(cfg: Config) -> Manifest:
    """The matches of the run whose latents are edited, made with this run as the other.

    Raises:
        MissingInput: There are none.
    """
    source = Path(cfg.runs) / cfg.ablate.matches_of
    here = f"{cfg.experiment}/{cfg.pair.name}"
    made = Manifest.read(source / "match")
    if made is None or made.config["match"]["other"] != here:
        raise MissingInput(
            f"ablate.matches_of={cfg.ablate.matches_of}: {source / 'match'} holds no matches in "
            f"this run; run `make match ARGS=match.other={here}` with that experiment and pair "
            "first"
        )
    if made.config.get("version") != VERSIONS["match"]:
        raise MissingInput(
            f"ablate.matches_of={cfg.ablate.matches_of}: {source / 'match'} was made by an older "
            f"version; run `make match ARGS=match.other={here}` with that experiment and pair again"
        )
    return made


def hybrid_read(cfg: Config, now: Mapping[str, str]) -> tuple[Manifest | None, str]:
    """The hybrid that is put beside elicitation, where it's asked for and current; or why not."""
    if "hybrid" not in cfg.elicit.interventions:
        return None, ""
    try:
        return require("hybrid", cfg, now), ""
    except MissingInput as refusal:
        return None, str(refusal)


def shown_in_report(
    cfg: Config, now: Mapping[str, str]
) -> tuple[dict[str, Manifest], dict[str, str]]:
    """Manifests of the stages that a report shows, and why the others are left out.

    Raises:
        MissingInput: The contrast, on which the verdict rests, is missing.
    """
    manifests, missing = {"contrast": require("contrast", cfg, now)}, dict[str, str]()
    for name in OPTIONAL:
        place = cfg.place(name)
        if not place.exists():
            missing[name] = f"Not made yet: `make {name}`, then `make report` again."
            continue
        try:
            manifests[name] = require(name, cfg, now)
        except MissingInput as error:
            reason = str(error).removeprefix(str(place)).strip()
            missing[name] = f"Left out: its folder {reason}."
    return manifests, missing


def of_report(
    cfg: Config, now: Mapping[str, str], manifests: Mapping[str, Manifest]
) -> dict[str, str]:
    """Fingerprints of what a report is made from: stages, calibration, reviewers' files."""
    found = {name: made.fingerprint for name, made in manifests.items()}
    found |= {option: value for option, value in now.items() if option.startswith("report.")}
    path = calibration_file(cfg)
    return found | ({CALIBRATION: digest(path)} if path else {})


def calibration_file(cfg: Config) -> Path | None:
    """File of the verdict's calibration; None where there is none."""
    path = Path(cfg.calibrate.output)
    return path if path.exists() else None


_Beside = Callable[[Config, Mapping[str, str]], dict[str, str]]


def _nothing(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    return {}


def _tokenizers(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    return {name: now[name] for name in sorted(f"{one}_tokenizer" for one in cfg.pair.readers)}


def _other_run(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    return {f"other_{name}": require_other(cfg, name).fingerprint for name in ("train", "rank")}


def _matches(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    return {"matches": require_matches(cfg).fingerprint} if cfg.ablate.matches_of else {}


def _hybrid(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    made, _ = hybrid_read(cfg, now)
    return {"hybrid": made.fingerprint} if made else {}


def _shown(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    manifests, _ = shown_in_report(cfg, now)
    return of_report(cfg, now, manifests)


_BESIDE: dict[str, _Beside] = {
    "traces": _tokenizers,
    "match": _other_run,
    "ablate": _matches,
    "elicit": _hybrid,
    "report": _shown,
}
"""What stages are made from beside the models, the stages and the files that they all name so."""
