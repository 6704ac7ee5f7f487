"""Options that have another name now, so that a refusal can say which."""

RENAMED: dict[str, str] = {
    "report.margin": "report.margin",
}
"""Of each earlier option, its name now, or what does its work; CHANGELOG has the same table."""
