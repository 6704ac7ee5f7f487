"""Execution validity: what both models make of a move whose opening words are written for them.

A model is started in words of its own: an opening drawn from its own distribution over openings at
that place. A base whose own words fail may still know others, so its best trigger is looked for
beside them: the wording that does best on the select split, and the best of several tries. Levels
that need no ability: slots filled by lot, the fixed rule that does best on the select split, and a
thought whose sentences are shuffled before the start. How often what follows has the move's form at
all tells a model that chooses wrongly from one that doesn't write the move.
"""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.execution import (
    Begun,
    Start,
    best_fixed_rule,
    chances,
    is_move,
    judge,
    own_openings,
    shuffled,
)
from sae_reasoning.contrast.measures import (
    BASE,
    DIFFERENCE,
    MODELS,
    RL,
    Measure,
    Resampling,
    difference,
    share,
    skill,
    skill_difference,
)
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS

Continue = Callable[[str, Sequence[str], Sequence[Begun], Sequence[tuple[int, int]]], list[str]]
"""Takes a model, prompts, beginnings and keys of noise (number, sample); gives what it adds."""

OWN_WORDS, BEST_WORDS, BEST_OF = "own words", "best words", "best of tries"
SHUFFLED, BY_LOT, FIXED_RULE = "shuffled thought", "by lot", "best fixed rule"
RULE_FAILS = "own words where the best fixed rule is wrong"
LOT_THERE = "by lot where the best fixed rule is wrong"
VALIDITY, SKILL, OVER_RULE, WELL_FORMED = "validity", "skill", "validity_over", "well_formed"


def validity(
    starts: Sequence[Start],
    log_probs: Mapping[str, Sequence[Sequence[float]]],
    continue_: Continue,
    *,
    tries: int,
    how: Resampling,
) -> list[Measure]:
    """Validity and skill of one move's starts.

    Args:
        starts: Of one move, on both splits.
        log_probs: Of each model and place, of each of the move's openings.
        continue_: Lets a model go on.
        tries: Of the base, of which the best counts.
        how: Makes intervals; its seed also draws words and orders.
    """
    report = [start for start in starts if start.split == "report"]
    select = [start for start in starts if start.split == "select"]
    if not report:
        return []
    move, seed = report[0].behaviour, how.seed
    problems = [start.problem_id for start in report]
    lot = chances(report, 1, seed)
    found: list[Measure] = []

    def run(model: str, openings: Sequence[str], sample: int) -> Float[np.ndarray, " start"]:
        return _valid(report, openings, _continued(continue_, model, report, openings, sample))

    def add(model: str, condition: str, valid: np.ndarray, chance: np.ndarray) -> None:
        found.append(share(how, move, VALIDITY, model, condition, valid, problems))
        found.append(skill(how, move, SKILL, model, condition, valid, chance, problems))

    words = {model: own_openings(report, log_probs[model], seed) for model in MODELS}
    texts = {m: _continued(continue_, m, report, words[m], 0) for m in MODELS}
    own = {model: _valid(report, words[model], texts[model]) for model in MODELS}
    for model in MODELS:
        add(model, OWN_WORDS, own[model], lot)
        formed = [
            is_move(s, o, t) for s, o, t in zip(report, words[model], texts[model], strict=True)
        ]
        found.append(
            share(how, move, WELL_FORMED, model, OWN_WORDS, np.array(formed, float), problems)
        )
        rng = random.Random(f"shuffled/{seed}/{move}")
        mixed = [shuffled(start.before, rng) for start in report]
        valid = _valid(
            report,
            words[model],
            continue_(
                model,
                [start.prompt for start in report],
                [Begun(before, o) for before, o in zip(mixed, words[model], strict=True)],
                [(start.place, 1000) for start in report],
            ),
        )
        found.append(share(how, move, VALIDITY, model, SHUFFLED, valid, problems))
    found.append(
        difference(how, move, VALIDITY, DIFFERENCE, OWN_WORDS, own[RL], own[BASE], problems)
    )
    found.append(
        skill_difference(how, move, SKILL, DIFFERENCE, OWN_WORDS, own[RL], own[BASE], lot, problems)
    )
    best = _best_opening(select, continue_)
    if best:
        add(BASE, BEST_WORDS, run(BASE, [best] * len(report), 1), lot)
    any_valid = own[BASE].copy()
    for sample in range(2, tries + 1):
        again = own_openings(report, log_probs[BASE], seed + sample)
        any_valid = np.maximum(any_valid, run(BASE, again, sample))
    add(BASE, BEST_OF, any_valid, chances(report, tries, seed))
    found.append(share(how, move, VALIDITY, BASE, BY_LOT, lot, problems))
    return found + _beside_a_rule(how, own, report, select, lot)


def _beside_a_rule(
    how: Resampling,
    own: Mapping[str, Float[np.ndarray, " start"]],
    starts: Sequence[Start],
    select: Sequence[Start],
    lot: Float[np.ndarray, " start"],
) -> list[Measure]:
    """How much better models are than the best fixed rule, and what comes where that is wrong.

    The rule is the best on the select split; without starts there, the best on these very starts,
    which favours it. Moves without rules have nothing.
    """
    rule = best_fixed_rule(starts, select)
    if rule is None:
        return []
    move, problems = starts[0].behaviour, [start.problem_id for start in starts]
    found = [share(how, move, VALIDITY, BASE, FIXED_RULE, rule, problems)]
    wrong = np.flatnonzero(rule == 0)
    there = [problems[index] for index in wrong.tolist()]
    for model, valid in own.items():
        found.append(difference(how, move, OVER_RULE, model, FIXED_RULE, valid, rule, problems))
        if len(wrong):
            found.append(share(how, move, VALIDITY, model, RULE_FAILS, valid[wrong], there))
    if len(wrong):
        found.append(share(how, move, VALIDITY, BASE, LOT_THERE, lot[wrong], there))
    return found


def _continued(
    continue_: Continue,
    model: str,
    starts: Sequence[Start],
    openings: Sequence[str],
    sample: int,
) -> list[str]:
    return continue_(
        model,
        [start.prompt for start in starts],
        [start.started(opening) for start, opening in zip(starts, openings, strict=True)],
        [(start.place, sample) for start in starts],
    )


def _valid(
    starts: Sequence[Start], openings: Sequence[str], texts: Sequence[str]
) -> Float[np.ndarray, " start"]:
    return np.array(
        [judge(s, o, text) for s, o, text in zip(starts, openings, texts, strict=True)], float
    )


def _best_opening(starts: Sequence[Start], continue_: Continue) -> str | None:
    """The opening after which the base is right most often on the select split."""
    if not starts:
        return None
    openings = ALL_OPENINGS[starts[0].behaviour]
    rows = [(start, opening) for opening in openings for start in starts]
    begun, said = [start for start, _ in rows], [opening for _, opening in rows]
    valid = _valid(begun, said, _continued(continue_, BASE, begun, said, 0))
    return openings[int(valid.reshape(len(openings), len(starts)).mean(1).argmax())]
