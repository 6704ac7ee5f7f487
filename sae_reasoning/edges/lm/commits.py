"""Which commit a hub id stands for: `main` changes, a commit doesn't."""

from functools import cache
from pathlib import Path


def commit_of(path: str, file: str, revision: str | None) -> str | None:
    """The commit that this run reads of a hub id; what was asked for where the hub can't say.

    Args:
        path: A hub id, or a folder, which has no commit.
        file: One that the repository has.
        revision: Branch, tag or commit; none for the main branch.
    """
    if Path(path).is_dir():
        return revision
    try:
        return _resolved(path, file, revision) or revision
    except (OSError, ValueError):
        return revision


@cache  # A branch that moves meanwhile doesn't change what a run reads.
def _resolved(path: str, file: str, revision: str | None) -> str | None:
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    found = cached_file(path, file, revision=revision)
    return extract_commit_hash(None if found is None else str(found), None)
