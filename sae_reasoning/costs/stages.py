"""What models read and write in `contrast`, `hybrid` and `elicit`, counted from their options.

Nobody knows beforehand how often behaviours occur or how long sentences are, so all is counted as
at most: a start of every behaviour in every trace of the RL model, half of its response before it,
sentences and answers as long as `contrast.behaviour_tokens`, sentences all different, and responses
of a base that is steered, tuned or made to think as long as the RL model's. Left out is what is
small beside it: openings that are read at opportunities, positions that are read again under a
vector, and the judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.config import Config
from sae_reasoning.costs.work import GRADIENTS, Texts, Work
from sae_reasoning.opening import open_task
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.steering.trials import num_rollouts
from sae_reasoning.steering.vectors import ASCENT, TURNS

Steps = dict[str, list[Work]]
"""Work by step, in the order of the stage."""
_LESSONS = 3
"""Critiques and their two controls."""
_HEADROOM = 0.3
"""Share of starts with headroom that pilots are planned for; a fifth to a half on the organisms."""


@dataclass(frozen=True)
class Posed:
    """Problems that there are, and how long texts on them are.

    Attributes:
        select: Problems of the split on which is chosen.
        report: Problems of the other.
        prompt: Mean tokens of a prompt.
        response: Mean tokens of each model's response.
        before: Mean tokens before a place in each model's responses.
    """

    select: int
    report: int
    prompt: float
    response: Mapping[str, float]
    before: Mapping[str, float]

    @classmethod
    def of(cls, cfg: Config, texts: Mapping[str, Texts]) -> "Posed":
        """As `traces` has them, or will."""
        known = list(texts.values())
        number = max(text.problems for text in known)
        report = max(1, min(number - 1, round(number * cfg.traces.report_share)))
        prompt = sum(text.prompt for text in known) / len(known)
        by_model = {model: texts.get(model, known[-1]) for model in MODELS}
        return cls(
            number - report,
            report,
            prompt,
            {model: text.response for model, text in by_model.items()},
            {model: text.before for model, text in by_model.items()},
        )

    def first(self, select: int, report: int, longest: int) -> "Posed":
        """The first problems of each split, with responses that are cut."""
        return Posed(
            min(self.select, select),
            min(self.report, report),
            self.prompt,
            {model: min(length, longest) for model, length in self.response.items()},
            {m: min(before, self.prompt + longest / 2) for m, before in self.before.items()},
        )


def contrast_steps(cfg: Config, posed: Posed) -> Steps:
    """Steps of `contrast`, of which natural text lacks some."""
    own, is_search = cfg.contrast, cfg.task_kind == "search"
    behaviours = own.behaviours or cfg.behaviours
    posed = posed.first(own.select_problems, own.report_problems, own.max_new_tokens)
    prompt, free, sentence = posed.prompt, posed.response, float(own.behaviour_tokens)
    # A model of the search world that is made to think writes as much as one that does.
    said = {m: free[RL] if cfg.traces.kind == "search" else free[m] for m in MODELS}
    traces = posed.report * own.samples
    before = prompt + said[RL] / 2
    starts = min(own.report_starts, traces)
    tried = min(own.select_starts, posed.select * own.samples)
    whole = prompt + said[RL]
    every = [Work(MODELS, 2 * (posed.select * own.samples + traces), whole)]
    steps: Steps = {
        "rollouts": [
            Work([m], number * own.samples, prompt, said[m], copies=own.samples)
            for m in MODELS
            for number in (posed.select, posed.report)
        ]
    }
    valued = own.execution_value != "never" and not (is_search and own.execution_value == "auto")
    if is_search:
        openings = open_task(cfg).openings
        assert openings is not None
        steps["onset probability"] = every
        known = sum(len(openings.of(behaviour)) for behaviour in behaviours)
        count = len(behaviours) * starts
        steps["execution accuracy"] = [
            # Own opening and shuffled chain of both; the base's best opening and best of several.
            *(Work([m], 2 * count, before, sentence) for m in MODELS),
            Work([BASE], own.best_of * count, before, sentence),
            Work([BASE], known * tried, before, sentence),
        ]
    else:
        places = own.onset_places * own.onset_samples
        # Half of them onsets, all the RL model's at most; the others alike many of both.
        at = (3 * posed.before[RL] + posed.before[BASE]) / 4
        steps["onset probability"] = [
            Work([m], places, at, sentence, copies=own.onset_samples) for m in MODELS
        ]
        steps["mined openings"] = [Work(MODELS, min(own.onset_places, 2 * traces), whole)]
    if valued:
        candidates = [min(own.value_candidates, n) for n in (traces, posed.select * own.samples)]
        steps["execution value"] = _value(cfg, before, said[RL] / 2, *candidates)
    if is_search:
        steps["steering vectors"] = _steering(cfg, before, starts, tried)
    elif valued:
        kept = min(own.value_starts, traces), min(own.value_select_starts, candidates[1])
        steps["steering vectors"] = _steering(cfg, before, *kept, rest=said[RL] / 2)
    sampled = min(own.pass_problems, posed.report)
    steps["pass@k"] = [
        Work([m], sampled * own.pass_samples, prompt, free[m], copies=own.pass_samples)
        for m in MODELS
    ]
    steps["corrupted CoT"] = [
        Work([RL], 3 * min(own.corrupted_traces, traces), whole, sentence),
    ]
    if is_search:
        steps["content loss"] = [Work(MODELS, traces, whole)]
    steps["token differences"] = [Work(MODELS, traces, whole)]
    return steps


def _value(cfg: Config, before: float, rest: float, starts: int, tried: int) -> list[Work]:
    """Pilots until enough starts have headroom, executions and controls, completions of each."""
    own, sentence = cfg.contrast, float(cfg.contrast.behaviour_tokens)
    behaviours = len(own.behaviours or cfg.behaviours)
    kept = min(own.value_starts, starts), min(own.value_select_starts, tried)
    pilots = sum(
        behaviours * min(candidates, round(number / _HEADROOM))
        for number, candidates in zip(kept, (starts, tried), strict=True)
    )
    report, select = behaviours * kept[0], behaviours * kept[1]
    # Of the base: own words (several), the RL model's and the best opening's; of the RL model: own
    # words; both controls, several each.
    conditions = 3 * own.best_of + 3
    on_select = 2 * own.best_of + own.value_openings
    return [
        *(
            Work([RL], pilots * own.pilot_samples, given, rest, copies=own.pilot_samples)
            for given in (*(2 * [before + sentence]), before)  # Of both controls, and freely.
        ),
        *(
            Work([m], report * own.own_tries, before, sentence, copies=own.own_tries)
            for m in MODELS
        ),
        Work([BASE], report * (own.best_of + 2) + select * own.value_openings, before, sentence),
        Work([RL], report, before, sentence),
        *(
            Work([RL], number * completions, before + sentence, rest, copies=completions)
            for number, completions in (
                (report * conditions, own.completions),
                (select * on_select, own.select_completions),
            )
        ),
    ]


def _steering(cfg: Config, before: float, starts: int, tried: int, rest: float = 0.0) -> list[Work]:
    """Gradients at onsets and elsewhere, ascents, and what the base says under each vector.

    Where it's valued, the RL model completes each sentence, by `rest` tokens.
    """
    own, layers = cfg.contrast, len(cfg.layers)
    behaviours, sentence = len(own.behaviours or cfg.behaviours), float(own.behaviour_tokens)
    climbs = TURNS * layers if ASCENT in own.vectors else 0
    vectors, controls = layers * len(own.vectors), 2 * own.controls
    doses = len(own.doses) * (vectors + controls)
    compared = 2 + controls + behaviours - 1
    steered = (
        (behaviours * tried * doses, doses, own.select_completions),
        (behaviours * starts * compared, compared, own.completions),
    )
    work = [Work([BASE], behaviours * tried * (2 + climbs), before, passes=GRADIENTS)]
    for number, copies, completions in steered:
        work.append(Work([BASE], number, before, sentence, copies=copies))
        if rest:
            given = before + sentence
            work.append(Work([RL], number * completions, given, rest, copies=completions))
    return work


def hybrid_work(cfg: Config, posed: Posed) -> list[Work]:
    """Reading, search of vectors, and rollouts of each model in lockstep with the other."""
    own, layers, prompt = cfg.hybrid, len(cfg.layers), posed.prompt
    kinds, behaviours = len(own.vectors), 1 + len(own.behaviours or cfg.behaviours)
    read = min(own.select_traces, posed.select * cfg.traces.rl_samples)
    whole = prompt + posed.response[RL]
    posed = posed.first(own.select_problems, own.num_problems, own.max_new_tokens)
    places = behaviours * own.places * layers
    trained = int("trained" in own.vectors)  # Of one size; the others of every dose.
    sizes = trained + len(own.doses) * (kinds - trained)
    chosen = len(own.multiples) * kinds + len(own.doses) * layers + len(own.budgets)
    reported = num_rollouts(own)

    def roll(writers: Sequence[str], each: int, problems: int) -> Work:
        copies = min(each, own.batch_size)  # Those of a problem stand together.
        return Work(writers, each * problems, prompt, posed.response[RL], copies=copies)

    return [
        Work(MODELS, read, whole),
        Work([BASE], 2 * behaviours * own.places, prompt + posed.response[RL] / 2),
        Work([BASE], places * own.steps * trained, float(own.horizon), passes=GRADIENTS),
        Work([BASE], places * sizes, float(own.horizon)),
        roll((BASE, RL), chosen, posed.select),
        roll((BASE, RL), reported[BASE], posed.report),
        roll((RL, BASE), reported[RL], posed.report),
    ]


def elicit_work(cfg: Config, posed: Posed) -> list[Work]:
    """Rollouts of both models and of the base under each intervention, and trainings."""
    own = cfg.elicit
    choosing = min(own.choose_problems, posed.select)
    posed = posed.first(own.select_problems, own.report_problems, own.max_new_tokens)
    each, prompt, response = posed.report * own.samples, posed.prompt, posed.response[RL]
    work = [Work([m], each, prompt, posed.response[m], copies=own.samples) for m in MODELS]

    def roll(number: float, copies: int = 1) -> Work:
        return Work([BASE], number, prompt, response, copies=copies)

    def learn(number: float) -> Work:
        return Work([BASE], number, prompt + response, passes=GRADIENTS)

    arms = {"prompt": 3, "tools": 3, "critiques": _LESSONS, "gate": 2, "biases": 2}
    work.append(roll(each * sum(arms.get(name, 0) for name in own.interventions), own.samples))
    if "critiques" in own.interventions:
        settings = len(own.critique_rates) * len(own.critique_steps)
        looked_at = 1 if cfg.task_kind == "search" else own.attempt_problems
        work.append(roll(looked_at * own.attempts, own.attempts))
        work.append(roll(_LESSONS * settings * choosing))
        steps = max(own.critique_steps) * (len(own.critique_rates) + 1)
        work.append(learn(_LESSONS * steps * own.critique_batch))
    for name, steps, rates in (
        ("gate", own.gate_steps, own.gate_rates),
        ("biases", own.bias_steps, own.bias_rates),
    ):
        if name in own.interventions:
            episodes = len(rates) * steps * own.rl_prompts * own.rl_samples
            work += [roll(episodes, own.rl_samples), learn(episodes), roll(len(rates) * choosing)]
    if "best-of" in own.interventions:
        most = max(own.best_of)
        work.append(roll(min(own.best_problems, posed.report) * most, most))
    return work
