"""The tables of each stage's version, as they were written down when it was raised.

Where a stage's tables change, its entry in `config.VERSIONS` is to be raised, and written down by
`RECORD_TABLES=1 python -m pytest -n 0 -k recorded`, which refuses what isn't raised.
"""

import json
import os
import re
from pathlib import Path

from sae_reasoning.config import VERSIONS
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.tables import read_table

RECORD = Path(__file__).with_name("versions.json")


def read_record() -> dict[str, dict]:
    """By stage, `version` and the columns of its `tables`."""
    known: dict[str, dict] = json.loads(RECORD.read_text(encoding="utf-8"))
    return known


def hold_to_record(folder: Path) -> None:
    """Hold the tables of a finished stage against those of its version."""
    made = Manifest.read(folder)
    assert made
    known, version = read_record(), VERSIONS[made.stage]
    tables = {
        re.sub(r"\d+", "0", str(path.relative_to(folder))): sorted(read_table(path))
        for path in sorted(folder.rglob("*.parquet"))
    }
    own = known.get(made.stage, {"version": 0, "tables": {}})
    if os.environ.get("RECORD_TABLES") and version > own["version"]:
        known[made.stage] = own = {"version": version, "tables": tables}
        text = json.dumps(dict(sorted(known.items())), indent=1)
        RECORD.write_text(f"{text}\n", encoding="utf-8")
    how = f"raise VERSIONS[{made.stage!r}], then record its tables (tests/recorded.py)"
    assert tables == own["tables"], f"the tables of {made.stage} have changed; {how}"
    assert version == own["version"], f"{made.stage} has another version; {how}"
