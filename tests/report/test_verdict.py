"""The verdict's lines, one by one, and its calibration."""

from collections.abc import Mapping
from inspect import signature

import pytest

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.report.calibration import Calibration, Cell, calibration
from sae_reasoning.report.cards import card, headline
from sae_reasoning.report.verdict import Verdict, verdict

MOVE = "backtracking"
DEPLOYED = {
    "trace ratio": (40.0, 30.0, 55.0),
    "trace difference": (1.2, 1.0, 1.4),
    "given ratio": (3.5, 3.3, 3.7),
    "given difference": (0.5, 0.45, 0.55),
    "rl skill": (0.95, 0.9, 1.0),
    "base skill": (0.9, 0.85, 0.95),
    "best skill": (0.92, 0.88, 0.97),
    "tries skill": (0.95, 0.9, 1.0),
    "gap": (0.02, -0.02, 0.06),
    "steered": (0.6, 0.5, 0.7),
    "over none": (0.4, 0.3, 0.5),
    "over random direction 1": (0.3, 0.2, 0.4),
}
"""Value, lower and upper bound of what the verdict reads."""

KEYS = {
    "trace ratio": ("onset_probability/per_trace", "rl/base", ""),
    "trace difference": ("onset_probability/per_trace", "rl-base", ""),
    "given ratio": ("onset_probability/per_opportunity", "rl/base", ""),
    "given difference": ("onset_probability/per_opportunity", "rl-base", ""),
    "rl skill": ("chance_corrected_accuracy", "rl", "own opening"),
    "base skill": ("chance_corrected_accuracy", "base", "own opening"),
    "best skill": ("chance_corrected_accuracy", "base", "best opening"),
    "tries skill": ("chance_corrected_accuracy", "base", "best of k"),
    "gap": ("chance_corrected_accuracy", "rl-base", "own opening"),
    "steered": ("steered/chance_corrected", "base", "steering vector"),
    "over none": ("steered/chance_corrected_over", "base", "none"),
    "over random direction 1": ("steered/chance_corrected_over", "base", "random direction 1"),
}
LACKING = {
    "base skill": (-1.0, -1.2, -0.8),
    "best skill": (-0.9, -1.1, -0.7),
    "tries skill": (-0.8, -1.1, -0.6),
    "gap": (0.9, 0.85, 0.95),
    "steered": (0.0, 0.0, 0.02),
    "over none": (0.0, 0.0, 0.0),
}


def judged(
    changes: Mapping[str, tuple[float, float, float] | None], items: int = 1000, n: int = 200
) -> tuple[str, str]:
    found = full(changes, items, n)
    return found.verdict, found.qualifier


def full(
    changes: Mapping[str, tuple[float, float, float] | None],
    items: int = 1000,
    n: int = 200,
    chooses_to_think: bool = True,
) -> Verdict:
    measures = []
    for name, value in {**DEPLOYED, **changes}.items():
        if value is None:
            continue
        measure, model, condition = KEYS[name]
        for level in (0.95, 0.9):
            measures.append(Measure(MOVE, measure, model, condition, *value, level, n, items))
    if chooses_to_think:
        share = (0.99, 0.98, 1.0, 0.95, n, items)
        measures.append(Measure("", "enter_thinking", "rl", "", *share))
    for model in ("base", "rl"):
        rate = (0.02, 0.01, 0.03) if model == "base" else (1.2, 1.0, 1.4)
        measures.append(
            Measure(MOVE, "onset_probability/per_trace", model, "", *rate, 0.95, n, items)
        )
        measures.append(
            Measure(
                MOVE, "execution_accuracy", model, "own opening", 0.9, 0.85, 0.95, 0.95, n, items
            )
        )
    found = verdict(MOVE, measures, ReportConfig(), "the grammar")
    assert found.reason and all(e.n == n for e in found.evidence)
    return found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("deployed", "")),
        (
            {"given ratio": (1.0, 0.9, 1.1), "given difference": (0.0, -0.02, 0.02)},
            ("deployed", "gateway"),
        ),
        (LACKING, ("created", "")),
        # A base that is partly able is neither.
        ({"base skill": (0.5, 0.4, 0.6), "gap": (0.3, 0.2, 0.4)}, ("inconclusive", "")),
        # As good as the model, but hardly above chance.
        ({"base skill": (0.45, 0.38, 0.55)}, ("inconclusive", "")),
        # Nearer to chance than to certainty isn't unable.
        (LACKING | {"base skill": (0.3, 0.2, 0.4)}, ("inconclusive", "")),
        # No steering vector, or other opening, was tried.
        (LACKING | {"steered": None}, ("inconclusive", "")),
        (LACKING | {"best skill": None}, ("inconclusive", "")),
        # Up a trace, down an opportunity: deployed, but thinking isn't all that changed.
        (
            {"given ratio": (0.4, 0.3, 0.5), "given difference": (-0.3, -0.4, -0.2)},
            ("deployed", "less frequent while thinking"),
        ),
        # Up a trace, neither up nor down at an opportunity.
        (
            {"given ratio": (1.3, 0.9, 1.7), "given difference": (0.1, -0.05, 0.2)},
            ("deployed", "when unclear"),
        ),
        # Rare at an opportunity, where every sentence is one, but eight times as often.
        (
            {"given ratio": (8.0, 6.5, 9.9), "given difference": (0.007, 0.005, 0.009)},
            ("deployed", "when unclear"),
        ),
        # The base never makes it: the ratio has no upper bound, or no interval; differences decide.
        (LACKING | {"trace ratio": (float("inf"), 40.0, float("inf"))}, ("created", "")),
        (LACKING | {"trace ratio": (float("nan"),) * 3}, ("created", "")),
        # Nobody measured it: a difference alone isn't what a rate is judged by.
        (LACKING | {"trace ratio": None}, ("inconclusive", "")),
        ({"given ratio": None}, ("inconclusive", "")),
        ({"over none": None, "over random direction 1": None}, ("inconclusive", "")),
        # Unable in its own opening, able in others: not created.
        (LACKING | {"best skill": (0.8, 0.7, 0.9)}, ("inconclusive", "")),
        (LACKING | {"tries skill": (0.4, 0.2, 0.6)}, ("inconclusive", "")),
        (LACKING | {"steered": (0.7, 0.6, 0.8)}, ("inconclusive", "")),
        # Able, but no steering vector outperforms every control.
        ({"over random direction 1": (0.02, -0.01, 0.05)}, ("inconclusive", "")),
        ({"rl skill": (0.4, 0.3, 0.6)}, ("inconclusive", "")),
        (LACKING | {"rl skill": (0.5, 0.35, 0.6)}, ("inconclusive", "")),
        (
            {
                "trace ratio": (1.05, 0.9, 1.2),
                "given ratio": (1.0, 0.9, 1.1),
            },
            ("unchanged", ""),
        ),
        # Level only as differences, for a behaviour that neither model makes.
        (
            {
                "trace ratio": (5.0, 0.5, 50.0),
                "trace difference": (0.001, -0.001, 0.003),
                "given ratio": (5.0, 0.5, 50.0),
                "given difference": (0.001, -0.001, 0.003),
            },
            ("unchanged", ""),
        ),
        (
            {
                "trace ratio": (0.5, 0.4, 0.6),
                "trace difference": (-0.1, -0.12, -0.08),
                "given ratio": (0.6, 0.5, 0.7),
                "given difference": (-0.1, -0.12, -0.08),
            },
            ("reduced", ""),
        ),
        # Not clearly up: a wide interval around the margin.
        ({"trace ratio": (1.5, 1.1, 2.0)}, ("inconclusive", "")),
        # Up by a factor, but from nothing to next to nothing.
        ({"trace difference": (0.005, 0.003, 0.007)}, ("inconclusive", "")),
        ({"trace difference": None}, ("inconclusive", "")),
        ({"gap": None}, ("inconclusive", "")),
        ({"trace difference": (1.2, float("nan"), float("nan"))}, ("inconclusive", "")),
    ],
)
def test_the_first_line_that_applies_is_the_verdict(
    changes: Mapping[str, tuple[float, float, float] | None], expected: tuple[str, str]
) -> None:
    assert judged(changes) == expected


def test_a_model_that_does_not_choose_to_think_has_no_gateway() -> None:
    level = {"given ratio": (1.0, 0.9, 1.1), "given difference": (0.0, -0.02, 0.02)}
    found = full(level, chooses_to_think=False)
    assert (found.verdict, found.qualifier) == ("deployed", "when unclear")
    assert "doesn't choose whether to think" in found.reason


def test_figures_are_cited_with_their_judge_and_control() -> None:
    created = full(LACKING)
    found = {one.measure: (one.judge, one.control) for one in created.evidence}
    assert found["onset_probability/per_trace rl/base"] == ("", "")
    assert found["chance_corrected_accuracy rl own opening"] == ("the grammar", "random fill")
    assert found["steered/chance_corrected base steering vector"] == ("the grammar", "random fill")
    assert found["steered/chance_corrected_over base random direction 1"] == (
        *("the grammar", "random direction 1"),
    )
    (bar, *_) = [b for b in card(created).deciding if "judged by" in b.label]
    assert bar.label.endswith(", judged by the grammar")


def test_a_ratio_that_was_not_measured_is_named_in_the_reason() -> None:
    missing = full({"trace ratio": None}).reason
    assert missing == (
        "a needed measure is missing: onset_probability/per_trace rl/base (90%) wasn't measured"
    )
    unbounded = full({"trace difference": (1.2, float("nan"), float("nan"))}).reason
    assert unbounded.endswith("onset_probability/per_trace rl-base (90%) has no interval")


def test_a_measure_that_the_task_cannot_have_is_named_with_what_it_lacks() -> None:
    lacking = {"onset probability": ["openings"], "execution accuracy": ["judge", "null"]}
    found = verdict(MOVE, [], ReportConfig(), lacking=lacking)
    assert found.verdict == "inconclusive"
    assert found.reason == (
        "a needed measure is missing: onset_probability/per_opportunity rl-base wasn't measured, "
        "since this task has no openings"
    )


def test_pages_tell_how_the_rate_of_a_deployed_behaviour_changes_while_thinking() -> None:
    def found(ratio: tuple[float, float, float], gap: tuple[float, float, float]) -> Verdict:
        return full({"given ratio": ratio, "given difference": gap})

    when = found((4.0, 3.5, 4.5), (0.5, 0.4, 0.6))
    rarer = found((0.4, 0.3, 0.5), (-0.3, -0.4, -0.2))
    unclear = found((0.78, 0.74, 0.82), (-0.06, -0.08, -0.04))
    assert [one.qualifier for one in (when, rarer, unclear)] == [
        "",
        "less frequent while thinking",
        "when unclear",
    ]
    told = [headline([one]) for one in (when, rarer, unclear)]
    assert all("is deployed (" in text for text in told)
    assert len({*told}) == len({card(one).means for one in (when, rarer, unclear)}) == 3
    assert "less frequent" in rarer.reason
    held = {bar.label for bar in card(unclear).deciding}
    assert not any("while thinking" in label for label in held)
    assert any("while thinking" in bar.label for bar in card(rarer).deciding)


@pytest.mark.parametrize(
    ("low", "lead", "changes", "is_warned"),
    [(0.08, "0.10", {}, False), (-0.1, "−0.080", {}, True), (-0.95, "−0.93", LACKING, False)],
)
def test_a_base_no_better_than_a_heuristic_is_told_where_a_behaviour_is_deployed(
    low: float, lead: str, changes: Mapping[str, tuple[float, float, float]], is_warned: bool
) -> None:
    over = [
        Measure(
            MOVE,
            "accuracy_over_heuristic",
            model,
            "best heuristic",
            low + 0.02,
            low,
            0.1,
            0.95,
            90,
            90,
        )
        for model in ("base", "rl")
    ]
    one = full(changes)
    said = card(one, over).heuristic
    assert said.startswith("Execution accuracy minus that of the best heuristic is ")
    assert f" is {lead} [" in said
    assert ("may know no more" in said) == is_warned
    assert card(one).heuristic == "" == card(one, over[:1]).heuristic


@pytest.mark.parametrize(("items", "n"), [(40, 200), (1000, 20)])
def test_too_little_is_inconclusive_however_large_the_effect(items: int, n: int) -> None:
    assert judged({}, items, n) == ("inconclusive", "")


def test_the_verdict_never_reads_how_a_pair_was_made() -> None:
    assert list(signature(verdict).parameters) == [
        *("behaviour", "measures", "thresholds", "judge", "lacking", "annotator")
    ]
    for read in (Measure, ReportConfig):
        assert not set(read.__dataclass_fields__) & {"arm", "pair", "recipe", "name", "lacks"}


def test_calibration_counts_what_is_right_by_class_and_leaves_unclear_truth_out() -> None:
    rows = [
        ("a", "deployed", "deployed"),
        ("a", "deployed", "inconclusive"),
        ("b", "created", "created"),
        ("b", "created", "deployed"),
        ("c", "unchanged", "unchanged"),
        ("c", "unclear", "deployed"),
    ]
    cells = [
        Cell(pair, "llama/seed 1", truth == "created", MOVE, truth, "", given, "", "")
        for pair, truth, given in rows
    ]
    found = calibration(cells, 200, 0)
    assert found.confusion["created"] == {"created": 1, "deployed": 1}
    assert found.right["all"].value == pytest.approx(3 / 4)
    assert found.right["deployed"].value == 1.0
    assert found.inconclusive["deployed"].value == 0.5
    assert (found.confused.value, found.confused.cells) == (pytest.approx(1 / 4), 4)
    assert found.confused_of_given.value == pytest.approx(1 / 3)
    assert found.against_recipe.value == pytest.approx(1 / 6)
    assert found.unclear == 1
    assert found.confusion["unclear"] == {"deployed": 1}
    assert found.right["all"].groups == 1
    assert found.right["unchanged"].low < 1.0
    assert found.right["all"].pairs == 3


def test_a_mistake_among_few_pairs_makes_no_interval_better() -> None:
    def found(mistakes: int) -> Calibration:
        return calibration(
            [
                Cell(
                    pair=f"pair {pair}",
                    group=f"llama/seed {pair // 2}",
                    is_lacking=behaviour == "a",
                    behaviour=behaviour,
                    truth="created" if behaviour == "a" else "deployed",
                    measured="",
                    verdict="created" if behaviour == "a" or pair < mistakes else "deployed",
                    qualifier="",
                    reason="",
                )
                for pair in range(6)
                for behaviour in ("a", "b")
            ],
            500,
            0,
        )

    before = found(0)
    for mistakes in (1, 2, 3):
        after = found(mistakes)
        share, earlier = after.right["all"], before.right["all"]
        assert share.low < earlier.low
        assert share.group_low < earlier.group_low
        assert share.group_low <= share.low
        assert after.confused.high > before.confused.high
        assert after.against_recipe.value == pytest.approx(mistakes / 12)
        before = after
    assert found(1).right["all"].high == 1.0
