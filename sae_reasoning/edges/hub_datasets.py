"""Rows of a dataset (datasets): from the hub, or from a folder that `save_to_disk` wrote."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae_reasoning.config import ConfigError


def dataset_rows(
    option: str, path: str, name: str | None, split: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of one split, each with what to call it in a message.

    Args:
        option: Option and value that named it, for messages.
        path: Folder, or hub id.
        name: Configuration on the hub; none where it has one only.
        split: Which part.

    Raises:
        ConfigError: It can't be read, or has no such split.
    """
    import datasets

    try:
        if Path(path).is_dir():
            found = datasets.load_from_disk(path)
            if isinstance(found, datasets.DatasetDict):
                found = _split_of(found, option, split)
        else:
            found = datasets.load_dataset(path, name, split=split)
    except ConfigError:
        raise
    except Exception as error:  # Hubs, caches and file formats raise all there is.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{option}: {path} can't be read ({reason}); reach the hub, or put the folder that "
            "save_to_disk wrote behind it, as gsm8k:/data/gsm8k"
        ) from error
    for number, row in enumerate(found):
        yield f"row {number}", row


def _split_of(found: Mapping[str, Any], option: str, split: str) -> Any:
    if split not in found:
        raise ConfigError(
            f"{option} has no split {split}; set traces.dataset_split to one of {', '.join(found)}"
        )
    return found[split]
