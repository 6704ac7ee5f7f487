"""How labels of behaviours are compared."""

import re


def spelt(label: str) -> str:
    """A label as labels are compared: lower case, words joined by hyphens."""
    return re.sub(r"[\s_]+", "-", label.strip().lower())
