"""What an experiment reads that no stage makes: models, tokenizers and the files it names."""

from collections.abc import Mapping

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import digest, fingerprint_files, require_stage
from sae_reasoning.edges.lm.load import describe


def outside_inputs(cfg: Config) -> dict[str, str]:
    """Fingerprints of the models and of every file that an option names, as they are now.

    Models stand under what they're called, their tokenizers under `<model>_tokenizer`, files under
    their options. A file that isn't there is left out: what was made from it can't be told to be
    stale, and who reads it will say that it's missing.
    """
    facts = {name: describe(model) for name, model in cfg.pair.readers.items()}
    found = {name: one.fingerprint for name, one in facts.items()}
    found |= {f"{name}_tokenizer": one.tokenizer_fingerprint for name, one in facts.items()}
    for option, path in cfg.files.items():
        if path.exists():
            found[option] = fingerprint_files(path, "**/*") if path.is_dir() else digest(path)
    return found


def models_in(cfg: Config, now: Mapping[str, str]) -> dict[str, str]:
    """Of `outside_inputs`, the models."""
    return {name: now[name] for name in cfg.pair.readers}


def stages_in(cfg: Config, now: Mapping[str, str], *names: str) -> dict[str, str]:
    """Fingerprints of finished stages that another reads; `require_stage` says what is refused.

    Args:
        cfg: The experiment.
        now: Of `outside_inputs`.
        names: The stages.
    """
    return {
        name: require_stage(cfg.folder, name, cfg.settings(name), now).fingerprint for name in names
    }


def files_in(now: Mapping[str, str], stage: str) -> dict[str, str]:
    """Of `outside_inputs`, the files that options of a stage name."""
    return {option: value for option, value in now.items() if option.startswith(f"{stage}.")}
