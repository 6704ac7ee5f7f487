"""Behaviours carried out at starts, and what stands in for them there: the models' part."""

from collections.abc import Mapping, Sequence

from sae_reasoning.contrast.sentences import (
    CarriedOut,
    Quote,
    Sentence,
    are_made,
    displaced,
    foreign,
    opening_of,
    own_words,
    whole_openings,
)
from sae_reasoning.contrast.starts import Begun, own_openings
from sae_reasoning.contrast.value import DISPLACED, FOREIGN, OWN_WORDS, RL_WORDS, TRY
from sae_reasoning.contrast.valued import Said
from sae_reasoning.edges.lm.branch import log_probs_at
from sae_reasoning.edges.lm.load import continuation_ids
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.rollouts.bans import not_beginning
from sae_reasoning.rollouts.respond import Response
from sae_reasoning.tasks.protocol import Start


def sentence_at(setting: Setting, model: str, start: Start, response: Response) -> Sentence:
    """What a response adds to a start, an opening that was written for the model included."""
    before = setting.models[model].decode(list(start.response_ids))
    return Sentence(
        ids=tuple(response.response_ids[len(start.response_ids) :]),
        response=response.text,
        said=response.text[len(before) :].lstrip(),
        ended=response.end_id is not None,
        truncated=response.truncated,
    )


def all_sentences(
    setting: Setting,
    starts: Sequence[Start],
    found: Sequence[Quote],
    rule: CarriedOut,
    used: Mapping[str, frozenset[str]],
) -> Said:
    """Executions in both models' own words and after the RL model's, and the controls.

    Args:
        setting: Of the contrast.
        starts: Where, of any behaviours.
        found: What the RL model says where spans begin.
        rule: Where a behaviour has been carried out.
        used: By `Start.key`, the sentences that a pilot used up.
    """
    tries = {model: _tries(setting, model, starts, rule) for model in MODELS}
    made = {model: _made(setting, starts, tries[model]) for model in MODELS}
    said: Said = {}
    for model in MODELS:
        count = setting.own.best_of if model == BASE else 1
        for number, own in enumerate(
            _in_own_words(setting, model, starts, tries[model], made[model], rule, count)
        ):
            said[model, _numbered(OWN_WORDS, number)] = own
    known = openings_of(setting)
    words = [
        opening_of(known[start.behaviour], text)
        for start, text in zip(starts, own_sentences(setting, starts, rule), strict=True)
    ]
    said[BASE, RL_WORDS] = [*begun(setting, BASE, starts, words, rule, "RL's words")]
    said |= controls(setting, starts, found, rule, used, said[RL, OWN_WORDS])
    return said


def controls(
    setting: Setting,
    starts: Sequence[Start],
    found: Sequence[Quote],
    rule: CarriedOut,
    used: Mapping[str, frozenset[str]],
    own: Sequence[Sentence | None] = (),
) -> Said:
    """Sentences of the same behaviour with other content, from the same and another problem.

    Args:
        setting: Of the contrast.
        starts: Where.
        found: What the RL model says where spans begin.
        rule: Says what is content.
        used: By `Start.key`, the sentences that a pilot used up.
        own: What the RL model says at each start in its own words, where it was asked to.
    """
    seed, count = setting.own.seed, setting.own.best_of
    texts = [[text] for text in own_sentences(setting, starts, rule)]
    for text, one in zip(texts, own or [None] * len(starts), strict=True):
        if one is not None:
            text.append(one.said)
    unused = [[one for one in found if one.said not in used.get(start.key, ())] for start in starts]
    drawn = {
        DISPLACED: [
            displaced(start, fit, rule, text, count, seed)
            for start, fit, text in zip(starts, unused, texts, strict=True)
        ],
        FOREIGN: [
            foreign(start, fit, count, seed) for start, fit in zip(starts, unused, strict=True)
        ],
    }
    return {
        (RL, _numbered(condition, number)): [
            written(setting, start, said[number]) if number < len(said) else None
            for start, said in zip(starts, of, strict=True)
        ]
        for condition, of in drawn.items()
        for number in range(count)
    }


def begun(
    setting: Setting,
    model: str,
    starts: Sequence[Start],
    openings: Sequence[str],
    rule: CarriedOut,
    stream: str,
    sample: int = 0,
) -> list[Sentence]:
    """What a model says after openings that are written for it, one at each start."""
    rows = [Begun(start, opening) for start, opening in zip(starts, openings, strict=True)]
    made = setting.respond(
        model,
        setting.prefixes(model, rows, sample),
        f"value/{stream}",
        setting.own.behaviour_tokens,
        until=rule,
    )
    return [sentence_at(setting, model, *one) for one in zip(starts, made, strict=True)]


def neutral_sentences(
    setting: Setting, starts: Sequence[Start], rule: CarriedOut
) -> list[Sentence | None]:
    """What the RL model says at each start that isn't the behaviour, if it says any such thing."""
    tries = _tries(setting, RL, starts, rule)
    return _neutral(setting, starts, tries, _made(setting, starts, tries), rule)


def openings_of(setting: Setting) -> dict[str, tuple[str, ...]]:
    """Openings that are written for models, by behaviour; the commonest first."""
    return whole_openings(setting.task, setting.traces, setting.behaviours)


def own_sentences(setting: Setting, starts: Sequence[Start], rule: CarriedOut) -> list[str]:
    """What the RL model said at each start, where it started the behaviour."""
    texts = {trace.trace_id: trace.text for trace in setting.traces}
    rests = [texts[start.trace_id][len(start.text) :] for start in starts]
    return [rest[: rule.find(rest, is_last=True)].strip() for rest in rests]


def _numbered(condition: str, number: int) -> str:
    """Name of a condition's executions beyond the first, by their number from 0."""
    return f"{condition}{TRY}{number + 1}" if number else condition


def _tries(
    setting: Setting, model: str, starts: Sequence[Start], rule: CarriedOut
) -> list[list[Sentence]]:
    """What a model says at each start, several times."""
    count = setting.own.own_tries
    found: list[list[Sentence]] = [[] for _ in starts]
    rows = [(index, number) for index in range(len(starts)) for number in range(count)]
    prefixes = [
        prefix
        for number in range(count)
        for prefix in setting.prefixes(model, [Begun(start) for start in starts], number)
    ]
    ordered = [prefixes[number * len(starts) + index] for index, number in rows]
    made = setting.respond(
        model,
        ordered,
        "value/own words",
        setting.own.behaviour_tokens,
        until=rule,
    )
    for (index, _), one in zip(rows, made, strict=True):
        found[index].append(sentence_at(setting, model, starts[index], one))
    return found


def _made(
    setting: Setting, starts: Sequence[Start], tries: Sequence[Sequence[Sentence]]
) -> list[list[bool | None]]:
    """Which of them are the behaviour of their start; None where the annotator says nothing."""
    rows = [(start, one) for start, own in zip(starts, tries, strict=True) for one in own]
    labelled = are_made(setting.task, [row[0] for row in rows], [row[1] for row in rows])
    if lacking := labelled.count(None):
        setting.console.say(f"contrast: left out {lacking:,} of {len(rows):,} without a label")
    made = iter(labelled)
    return [[next(made) for _ in own] for own in tries]


def _in_own_words(
    setting: Setting,
    model: str,
    starts: Sequence[Start],
    tries: Sequence[Sequence[Sentence]],
    made: Sequence[Sequence[bool | None]],
    rule: CarriedOut,
    count: int,
) -> list[list[Sentence | None]]:
    """A model's executions in words of its own, `count` at each start."""
    free: list[list[Sentence]] = [[] for _ in starts]
    for behaviour in {start.behaviour for start in starts}:
        rows = [index for index, start in enumerate(starts) if start.behaviour == behaviour]
        own = own_words(
            [tries[row] for row in rows],
            [made[row] for row in rows],
            setting.own.own_share,
        )
        for row, sentences in zip(rows, own, strict=True):
            free[row] = sentences
    found = []
    for number in range(count):
        said: list[Sentence | None] = [own[number] if len(own) > number else None for own in free]
        lacking = [row for row, one in enumerate(said) if one is None]
        forced = _in_own_openings(setting, model, [starts[row] for row in lacking], rule, number)
        for row, sentence in zip(lacking, forced, strict=True):
            said[row] = sentence
        found.append(said)
    return found


def _in_own_openings(
    setting: Setting, model: str, starts: Sequence[Start], rule: CarriedOut, number: int
) -> list[Sentence | None]:
    """After openings drawn from the model's own distribution over those that are known."""
    openings, found = openings_of(setting), dict[int, Sentence]()
    for behaviour in dict.fromkeys(start.behaviour for start in starts):
        known = openings[behaviour]
        rows = [row for row, start in enumerate(starts) if start.behaviour == behaviour]
        if not known:
            continue
        own = [starts[row] for row in rows]
        prefixes = setting.prefixes(model, [Begun(start) for start in own])
        sequences = [(*prefix.prompt_ids, *prefix.begun_ids) for prefix in prefixes]
        logs = log_probs_at(
            setting.models[model],
            sequences,
            [(index, len(ids) - 1) for index, ids in enumerate(sequences)],
            [known] * len(own),
            setting.own.token_budget,
        )
        by_start = {start.key: values for start, values in zip(own, logs, strict=True)}
        words = own_openings(own, known, by_start, setting.own.seed + number)
        made = begun(setting, model, own, words, rule, "own openings", number)
        found |= dict(zip(rows, made, strict=True))
    return [found.get(row) for row in range(len(starts))]


def written(setting: Setting, start: Start, text: str) -> Sentence:
    """A sentence of the RL model's, as it stands after a start."""
    lm = setting.models[RL]
    ids = continuation_ids(lm, text, start.response_ids)
    return Sentence(ids, lm.decode([*start.response_ids, *ids]), text)


def _neutral(
    setting: Setting,
    starts: Sequence[Start],
    tries: Sequence[Sequence[Sentence]],
    made: Sequence[Sequence[bool | None]],
    rule: CarriedOut,
) -> list[Sentence | None]:
    """What the RL model says at each start that isn't the behaviour.

    The first of its samples that isn't; where all of them are, the first of others that may not
    begin with the first token of an opening. None where those are the behaviour, too.
    """
    found = [
        next((one for one, is_it in zip(own, row, strict=True) if is_it is False), None)
        for own, row in zip(tries, made, strict=True)
    ]
    openings, lm = setting.task.openings, setting.models[RL]
    rows = [row for row, one in enumerate(found) if one is None and openings]
    own = [(row, number) for row in rows for number in range(setting.own.own_tries)]
    banned: list[list[int]] = []
    for row, _ in own:
        start = starts[row]
        known = openings.of(start.behaviour) if openings else ()
        firsts = {continuation_ids(lm, text, start.response_ids)[0] for text in known}
        firsts |= {one.ids[0] for one in tries[row] if one.ids}
        banned.append(sorted(firsts))
    prefixes = [setting.prefixes(RL, [Begun(starts[row])], number)[0] for row, number in own]
    made_so = setting.respond(
        RL,
        prefixes,
        "value/neutral",
        setting.own.behaviour_tokens,
        until=rule,
        sampler=not_beginning(banned),
    )
    sentences = [
        sentence_at(setting, RL, starts[row], one)
        for (row, _), one in zip(own, made_so, strict=True)
    ]
    is_it = are_made(setting.task, [starts[row] for row, _ in own], sentences)
    for (row, _), sentence, is_behaviour in zip(own, sentences, is_it, strict=True):
        if found[row] is None and is_behaviour is False:
            found[row] = sentence
    return found
