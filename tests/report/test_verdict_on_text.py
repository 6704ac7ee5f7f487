"""The verdict's lines where executions are valued by completion: the same, in the same order."""

from collections.abc import Mapping

import pytest

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.value import COMPLETION
from sae_reasoning.report.cards import card, headline, summary
from sae_reasoning.report.sections import values
from sae_reasoning.report.verdict import Verdict, verdict

Bounds = tuple[float, float, float]
BEHAVIOUR = "backtracking"
CONDITIONS = ("own opening", "RL's words", "best opening", "best of k")
UP = {
    ("onset_probability/per_trace", "rl/base", ""): (40.0, 30.0, 55.0),
    ("onset_probability/per_trace", "rl-base", ""): (1.2, 1.0, 1.4),
    ("onset_probability/per_trace", "base", ""): (0.02, 0.01, 0.03),
    ("onset_probability/per_trace", "rl", ""): (1.2, 1.0, 1.4),
    ("onset_probability/per_opportunity", "rl/base", ""): (3.5, 3.3, 3.7),
    ("onset_probability/per_opportunity", "rl-base", ""): (0.5, 0.45, 0.55),
}
VALUES = {
    ("execution_value", "rl", "own opening"): (0.8, 0.75, 0.85),
    ("execution_value", "base", "own opening"): (0.78, 0.73, 0.83),
}


def against(
    control: str, skill: Bounds, rests: Bounds, steered: Bounds, lead: Bounds
) -> dict[tuple[str, str, str], Bounds]:
    name, value, low, high = f"value_skill/{control}", *skill
    return {
        (f"value_over/{control}", "rl", "own opening"): rests,
        (f"value_over_anywhere/{control}", "rl", "own opening"): ANYWHERE,
        **{(name, "base", condition): skill for condition in CONDITIONS},
        (name, "rl-base", "own opening"): (1 - value, 1 - high, 1 - low),
        (f"steered/value_skill/{control}", "base", "steering vector"): steered,
        (f"steered/value_skill_over/{control}", "base", "none"): lead,
        (f"steered/value_skill_over/{control}", "base", "random direction 1"): lead,
    }


RESTS, ANYWHERE = (0.4, 0.3, 0.5), (0.2, 0.1, 0.3)
ABLE = ((0.95, 0.88, 1.0), RESTS, (0.5, 0.4, 0.6), (0.3, 0.2, 0.4))
UNABLE = ((0.02, -0.1, 0.12), RESTS, (0.0, 0.0, 0.05), (0.0, -0.02, 0.02))
HEADROOM = {("headroom", "rl", ""): (0.3, 0.25, 0.35)}
NO_WORTH = (0.0, -0.03, 0.03)
IDLE = {
    (f"value_over_anywhere/{control}", "rl", "own opening"): NO_WORTH
    for control in ("displaced", "neutral")
}
OPEN = {
    (measure, "rl", name): bounds
    for name in ("displaced", "neutral")
    for measure, bounds in (
        ("control_value_anywhere", (0.6, 0.5, 0.7)),
        ("redone_anywhere", (0.2, 0.1, 0.3)),
    )
}


def judged(
    *parts: Mapping[tuple[str, str, str], Bounds | None],
    items: Mapping[str, int] | None = None,
    annotator: str = "llm",
    judge: str = "",
) -> tuple[Verdict, list[Measure]]:
    given: dict[tuple[str, str, str], Bounds | None] = {**UP, **VALUES, **HEADROOM, **OPEN}
    for part in parts:
        given |= part
    measures = [
        Measure(BEHAVIOUR, *key, *bounds, level, 120, (items or {}).get(key[0], 150 * 2))
        for key, bounds in given.items()
        if bounds is not None
        for level in (0.95, 0.9)
    ]
    return verdict(BEHAVIOUR, measures, ReportConfig(), judge, annotator=annotator), measures


@pytest.mark.parametrize("control", ["displaced", "foreign"])
def test_an_able_base_is_deployed_and_an_unable_one_created(control: str) -> None:
    deployed, _ = judged(against(control, *ABLE))
    assert (deployed.verdict, deployed.qualifiers) == ("deployed", ())
    created, _ = judged(against(control, *UNABLE))
    assert created.verdict == "created"
    for one in (deployed, created):
        rests = next(e for e in one.evidence if e.measure.startswith("value_over/"))
        assert (rests.judge, rests.control) == (COMPLETION, control)
        assert f"value_skill/{control} base own opening" in {e.measure for e in one.evidence}


def test_displaced_sentences_are_the_control_where_enough_starts_have_one() -> None:
    both = (against("foreign", *UNABLE), against("displaced", *ABLE))
    many, _ = judged(*both)
    assert many.verdict == "deployed"
    few, _ = judged(*both, items={"value_over/displaced": 49})
    assert few.verdict == "created"
    assert "too few starts have a displaced sentence" in few.reason


def test_the_control_that_is_worth_more_on_select_decides() -> None:
    both = (against("foreign", *UNABLE), against("displaced", *ABLE))
    on_select = {
        ("control_value_on_select", "rl", control): (worth, worth - 0.1, worth + 0.1)
        for control, worth in (("displaced", 0.2), ("foreign", 0.4))
    }
    found, _ = judged(*both, on_select)
    assert found.verdict == "created"
    assert "too few starts" not in found.reason
    first = ("control_value_on_select", "rl", "displaced")
    assert judged(*both, on_select, {first: (0.5, 0.4, 0.6)})[0].verdict == "deployed"


@pytest.mark.parametrize("condition", [*CONDITIONS, "steering vector"])
def test_every_way_to_start_it_must_fail_before_a_behaviour_is_created(condition: str) -> None:
    name = "value_skill/displaced"
    name = f"steered/{name}" if condition == "steering vector" else name
    able = {(name, "base", condition): (0.5, 0.3, 0.7)}
    found, _ = judged(against("displaced", *UNABLE), able)
    assert found.verdict == "inconclusive"
    absent, _ = judged(against("displaced", *UNABLE), {(name, "base", condition): None})
    assert absent.verdict == "inconclusive"
    assert f"{name} base {condition} wasn't measured" in absent.reason


def test_what_surely_makes_no_difference_is_cosmetic() -> None:
    found, measures = judged(against("displaced", *ABLE), IDLE, annotator="cues")
    assert (found.verdict, found.qualifier) == ("cosmetic", "by cue words")
    assert {e.margin for e in found.evidence if e.measure.startswith("value_over")} == {0.05}
    assert "makes no difference to the answer" in card(found, measures).means
    assert headline([found]).startswith("Backtracking is cosmetic")
    # A little more than the margin may be left: then it isn't sure, nor is it of few starts.
    for key in IDLE:
        unsure, _ = judged(against("displaced", *ABLE), IDLE, {key: (0.0, -0.06, 0.06)})
        assert unsure.verdict == "deployed"
        few, _ = judged(against("displaced", *ABLE), IDLE, items={key[0]: 40})
        assert few.verdict == "deployed"
    # Where nearly all is right, or wrong, whatever is said, nothing could have made a difference.
    for after in ((0.97, 0.93, 0.99), (0.02, 0.01, 0.06)):
        settled = {("control_value_anywhere", "rl", "displaced"): after}
        assert judged(against("displaced", *ABLE), IDLE, settled)[0].verdict == "deployed"
    # Where the behaviour is mostly done after all, nothing shows what comes of leaving it out.
    again = {("redone_anywhere", "rl", "neutral"): (0.5, 0.4, 0.6)}
    assert judged(against("displaced", *ABLE), IDLE, again)[0].verdict == "deployed"
    unmeasured = {("value_over_anywhere/neutral", "rl", "own opening"): None}
    assert judged(against("displaced", *ABLE), IDLE, unmeasured)[0].verdict == "deployed"


def test_nothing_is_judged_where_too_few_starts_have_headroom_or_nothing_rests_on_them() -> None:
    rests = {("value_over/displaced", "rl", "own opening"): (0.05, -0.02, 0.1)}
    found, _ = judged(against("displaced", *ABLE), rests)
    assert found.verdict == "inconclusive"
    assert "nothing is shown to rest on it" in found.reason
    few, _ = judged(against("displaced", *ABLE), items={"execution_value": 40})
    assert few.verdict == "inconclusive"
    assert "40 starts on 120 problems at which the answer rests on it (30% of 300" in few.reason
    none, _ = judged(dict.fromkeys(VALUES), {("headroom", "rl", ""): (0.0, 0.0, 0.02)})
    assert none.verdict == "inconclusive"
    assert "0 starts on 0 problems at which the answer rests on it (0% of 300" in none.reason


def test_cosmetic_needs_a_rate_that_is_up() -> None:
    level = {
        ("onset_probability/per_trace", "rl/base", ""): (1.05, 0.9, 1.2),
        ("onset_probability/per_opportunity", "rl/base", ""): (1.0, 0.9, 1.1),
    }
    found, _ = judged(against("displaced", *ABLE), IDLE, level)
    assert found.verdict == "unchanged"


def test_two_judges_on_different_sides_of_a_threshold_settle_nothing() -> None:
    program = {("program_skill/displaced", "base", "own opening"): (0.1, 0.0, 0.15)}
    found, _ = judged(against("displaced", *ABLE), program, judge="arithmetic")
    assert found.verdict == "inconclusive"
    assert "two judges disagree" in found.reason
    assert "by arithmetic 0.10 [0, 0.15]" in found.reason
    by = {e.measure: e.judge for e in found.evidence}
    assert by["program_skill/displaced base own opening"] == "arithmetic"
    assert by["value_skill/displaced base own opening"] == COMPLETION
    # Unsure on either side, it doesn't contradict.
    wide = {("program_skill/displaced", "base", "own opening"): (0.3, 0.1, 0.6)}
    agreed, _ = judged(against("displaced", *ABLE), wide, judge="arithmetic")
    assert agreed.verdict == "deployed"


def test_little_that_rests_on_a_behaviour_is_said() -> None:
    rests = ("value_over/displaced", "rl", "own opening")
    perhaps, _ = judged(against("displaced", *ABLE), {rests: (0.15, 0.05, 0.25)})
    assert perhaps.verdict == "deployed"
    assert "little rests on it, 0.15" in perhaps.reason
    surely, _ = judged(against("displaced", *ABLE), {rests: (0.1, 0.05, 0.15)})
    assert surely.verdict == "inconclusive"
    assert "too little rests on it for a skill" in surely.reason


def test_qualifiers_combine() -> None:
    level = {
        ("onset_probability/per_opportunity", "rl/base", ""): (1.0, 0.9, 1.1),
        ("onset_probability/per_opportunity", "rl-base", ""): (0.0, -0.02, 0.02),
    }
    found, measures = judged(against("displaced", *ABLE), level, annotator="cues")
    assert found.qualifiers == ("when unclear", "by cue words")
    assert summary(found, measures).verdict == "deployed (when unclear, by cue words)"
    assert "isn't settled" in card(found, measures).means
    assert judged(against("displaced", *ABLE), annotator="cues")[0].qualifier == "by cue words"


def test_pages_show_values_with_their_n_and_what_skill_is_measured_against() -> None:
    found, measures = judged(against("displaced", *ABLE), against("foreign", *ABLE))
    section = values(measures, [BEHAVIOUR])
    assert section is not None and section.rows is not None
    (chart,) = section.charts
    assert {bar.label for bar in chart.bars} == {"base, own opening", "RL model, own words"}
    (table,) = section.tables
    assert any("against displaced sentences" in row[1] for row in table.rows)
    assert {"value_skill/foreign", "steered/value_skill/foreign"} <= {*section.rows.measure}
    assert summary(found, measures).executed == ("0.78 [0.73, 0.83]", "0.80 [0.75, 0.85]")
    labels = [bar.label for bar in card(found, measures).deciding]
    assert any("value skill" in one and "against displaced" in one for one in labels)
    assert any(one.endswith(f"judged by {COMPLETION}") for one in labels)
    assert values([], [BEHAVIOUR]) is None
