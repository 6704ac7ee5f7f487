"""Options that have another name now, so that a refusal can say which."""

RENAMED: dict[str, str] = {
    "rank.trackers": "rank.span_detectors",
    "rank.announcers": "rank.onset_predictors",
    "rank.announce_by": "rank.onset_predictors_by",
    "rank.attacks.carrier_fvu": "rank.attacks.host_fvu",
    "traces.max_edges": "task.max_edges",
    "traces.min_edges": "task.min_edges",
    "traces.places": "task.places",
    "traces.remarks": "task.remarks",
    "contrast.triggers": "contrast.vectors",
    "contrast.announcers": "contrast.onset_predictors",
    "contrast.move_tokens": "contrast.behaviour_tokens",
    "hybrid.announcers": "hybrid.onset_predictors",
    "elicit.means": "elicit.interventions",
    "elicit.think": "elicit.think_instruction",
    "report.skill_margin": "report.margin",
}
"""Of each earlier option, its name now, or what does its work; CHANGELOG has the same table."""

REMOVED: dict[str, str] = {
    "ablate.think": "the pair's traces and prompts say how its responses are laid out, so a base "
    "that opens its chain of thought itself is made to, and no other",
}
"""Of each option that there is no more, what does its work; CHANGELOG has it as well."""
