"""Pages from templates (jinja2), and data that pages read as scripts.

Whatever text a template shows is made fit to be looked at and escaped, so that no caller has to
remember it; cells that go to W&B are pages like any other.
"""

import gzip
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sae_reasoning.edges.artifacts import publish
from sae_reasoning.texts import MAX_CHARS, number, shown

TEMPLATES = Path(__file__).parent / "templates"
_MAX_SHOWN = 10 * MAX_CHARS
"""Of one value in a template: what a caller has cut and written out by itself passes whole."""


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Publish a page.

    Args:
        path: Of the page.
        template: Name of a file of `templates/`.
        values: What the template names; text is escaped.
    """
    text = rendered(template, values)
    with publish(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A page as text; what it shows is escaped."""
    return _templates().get_template(template).render(values)


def write_call(path: Path, function: str, content: Any) -> None:
    """Publish a script that hands `content` to a function of the page that loads it.

    Pages opened from disk may load scripts beside them, but no JSON.
    """
    with publish(path) as partial:
        partial.write_text(f"{function}({inert_json(content)});\n", encoding="ascii")


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Publish JSON lines, gzipped; the same content makes the same bytes."""
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    with publish(path) as partial:
        partial.write_bytes(gzip.compress(text.encode("utf-8", "replace"), mtime=0))


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Publish a table as CSV."""
    with publish(path) as partial:
        rows.to_csv(partial, index=False, lineterminator="\n", errors="replace")


def inert_json(content: Any) -> str:
    """JSON in ASCII that no page takes for markup, wherever in it it's written.

    Raises:
        ValueError: A number isn't finite; JSON has none such.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def plain(content: Any) -> Any:
    """`content` with what JSON lacks, numbers that aren't finite, as null."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if isinstance(content, (float, np.floating)):
        return float(f"{content:.5g}") if math.isfinite(content) else None
    return content.item() if isinstance(content, np.generic) else content


def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["figure"] = _figure
    found.filters["with_code"] = _with_code
    found.filters["inert_json"] = lambda content: Markup(inert_json(content))
    # Style sheets and scripts are the package's own, and stand within the page as they are.
    found.globals["own_file"] = lambda name: Markup((TEMPLATES / name).read_text("utf-8"))
    return found


def _fit(value: Any) -> Any:
    """A template's value without what acts unseen; the package's own markup stays as it is."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return shown(value, _MAX_SHOWN) if is_text else value


def _with_code(text: str) -> Markup:
    """What stands between backticks as code; the rest is escaped as ever."""
    return Markup(re.sub("`([^`\\n]+)`", r"<code>\1</code>", str(escape(_fit(text)))))


def _figure(value: float | None) -> str:
    """Three figures, or a dash where there is none."""
    return "–" if value is None else number(value, 3)
