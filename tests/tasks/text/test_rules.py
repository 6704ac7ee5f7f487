"""The rules by which natural text is read, held to their versions in `config._RULES`.

`rules.json` holds, by rule and version, a digest of what the rule makes of a fixed corpus. Where
that changes, traces made before are stale, so the version is to be raised, and written down by
`RECORD_RULES=1 python -m pytest -n 0 tests/tasks/text/test_rules.py`, which refuses what isn't
raised. A changed corpus is written down by RECORD_RULES=corpus: then no rule may have changed.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sae_reasoning.config import _RULES
from sae_reasoning.edges.artifacts import fingerprint
from sae_reasoning.records import Comparison
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.grading import COUNTDOWN, GYM, Grader
from sae_reasoning.tasks.text.llm_labels import UnreadableAnswerError, read_answer
from sae_reasoning.tasks.text.placing import place
from sae_reasoning.tasks.text.questions import Draw, pose_rows
from sae_reasoning.tasks.text.sentences import possible_starts, sentence_opportunities, sentences
from sae_reasoning.traces.sections import VENHOFF_LABELS, parse_sections

RECORD = Path(__file__).with_name("rules.json")
ENDINGS = Path(__file__).with_name("graded_endings.jsonl")

TEXTS = [
    "It costs 3.50 dollars. Wait, no: 4.25. So what? Let me check!",
    'He said "Stop." Then he left. “Done?” she asked… Hmm, maybe.',
    "Steps:\n1. Add 2.\n2) Multiply by 3!\na. Check.\n- Wait, that's off.\n\n* **Hmm.** No.",
    "Let $x = 0.5$. Then \\(x^2 = 0.25\\). \\[ \\left. f \\right|_0 = 1. \\] No.\n\n$$y = 2.$$",
    "Use e.g. 5 vs. 6, i.e. Dr. Smith's fig. 3 (cf. eq. 2). Prof. J. R. Ray, et al. agree. OK.",
    "```python\nx.append(1)  # Wait.\nprint(x[0])\n```\nNow 5! = 120 and n! grows! Fine.",
    "<think>I'm not sure. I’m lost…</think>The answer is 7.<answer>7</answer>",
    "你好。等等！我错了？“不。”所以答案是三。 Wait。",
    "No full stop here\nbut a line\n\n\n   indented: wait - hold on—no\ttabs. End",
    "[1, 2.5, .3] vs ...? Really?! (Yes.) [Wait.] {No.} *Hmm.* _Oh._ `Ok.` Then...",
    "",
    "   \n",
    "🙂 Wait. ‘Alternatively’, 1,000.5 m/s. A.B. C. at 3 p.m. went home. I . think so .",
]
ENDS = [*". ! ? … ... 。 ！ ？ ?! : ; , </think> <think>".split(), "\n"]
CLOSINGS = ["", *"\"'”’»)]}*_`$\\」』）>|~", '."', "**", "\\)", "\\]", "$$", "```", "”)"]
NO_ENDS = (
    "e.g i.e cf vs viz approx resp fig figs eq eqs dr mr mrs ms prof et_al etc inc a.b U.S p.m "
    "1 12 1234 a b \\left \\right \\bigl \\biggr \\Big x 3! n! )! abc! no. sec. st"
).split()
TEXTS += [f"Aa{end}{closing} Bb{end}{closing}Cc" for end in ENDS for closing in CLOSINGS]
TEXTS += [
    f"{before}{name.replace('_', ' ')}.{after}Bb"
    for name in NO_ENDS
    for before in ("", "Aa ", "Aa\n", "(", "> * ", "x")
    for after in (" ", "\n", "")
]
CUES = {
    "uncertainty-estimation": ["I'm not sure", "hmm", "maybe"],
    "backtracking": ["^wait", "hold on", "that's off"],
    "deduction": ["^so", "then"],
}
ANNOTATED = [
    '["initializing"] Let me see. ["end-section"]["deduction"] So 4. ["end-section"]',
    "[deduction] So [1, 2]. [2. backtracking] Wait, no. ['end-section'] lost [\"end-section\"]",
    '["adding knowledge"] A. ["unheard-of"] B.',
    "nothing here [x] at all",
]
QUOTED = [
    (["It costs 3.50 dollars.", "Wait, no: 4.25.", "Let me check!"], TEXTS[0]),
    (["it  costs 3.50 dollar", "Wait — no: 4.25", "never there"], TEXTS[0]),
    (["Let $x = 0.5$.", "Then (x^2 = 0.25)", "Wait"], TEXTS[3]),
    (["等等！", "所以答案是三。"], TEXTS[7]),
]
ANSWERS = [
    '{"sections": [{"label": "backtracking", "quote": "Wait, no: 4.25."}]}',
    'Sure:\n```json\n{"sections": [{"label": "Deduction", "quote": "So what?"},]}\n```',
    '{"sections": [{"label": "backtracking", "quote": "Wait, no: 4.25."}, {"label": "dedu',
    '{"sections": [{"label": "deduction", "quote": "Then \\(x^2 = 0.25\\)."}]}',
    '{"sections": [{"label": "deduction", "quote": "Then \\\\(x^2 = 0.25\\\\)."}]}',
    '{"sections": [{"label": "other", "quote": "It costs 3.50 dollars."}, '
    '{"label": "deduction", "quote": "nowhere"}, {"label": "deduction", "quote": "neither"}]}',
    '<think>{"sections": []}</think>[{"label": "uncertainty estimation", "quote": "So what?"}]',
    "I can't.",
    "",
]
COUNTDOWNS = ["(1 + 2) * 3", "1 + 2 + 3 = 6", "3 * 2 = 6", "6", "1+2+3+3", "1/0", "3,5", "six"]
COUNTDOWNS = [f"<answer>{said}</answer>" for said in [*COUNTDOWNS, "(1 + 2", "1 ++ 2 + 3"]]
COUNTDOWNS += [
    "\\boxed{1 \\times 2 + 3}",
    "\\boxed{one plus two}",
    "So 1 + 2 + 3 = 6.",
    "1 + 2 + 3",
]
BEHAVIOURS = list(CUES)


class Asked:
    """Outside programs, of which other versions say other things: what they are asked is noted."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def compare(self, reference: str, answer: str) -> Comparison:
        self.noted.append((reference, answer))
        return Comparison.UNDECIDED

    def gym(self, task: str, answer: str, entry: dict[str, Any]) -> float | None:
        self.noted.append((task, answer))
        return None


def of_sentences() -> list[Any]:
    lexicon = Lexicon(CUES, BEHAVIOURS)
    found: list[Any] = []
    for text in TEXTS:
        spans = lexicon.spans(text)
        opportunities = sentence_opportunities(text, spans, BEHAVIOURS)
        found.append(
            [possible_starts(text), sentences(text), spans, list(map(asdict, opportunities))]
        )
    found += [list(map(asdict, parse_sections(text, VENHOFF_LABELS))) for text in ANNOTATED]
    return [*found, *(place(quotes, text) for quotes, text in QUOTED)]


def posed(ending: dict[str, Any]) -> Problem:
    if "task" in ending:
        entry = {"answer": ending["reference"], "metadata": ending["metadata"]}
        return Problem("p", "report", "?", json.dumps(entry), f"{GYM}:{ending['task']}")
    rows = [{"question": "?", "answer": ending["reference"]}, {"question": "other", "answer": "1"}]
    problems = pose_rows([("row", row) for row in rows], "endings", Draw(2, 0.5, "", 0))
    return next(problem for problem in problems if problem.prompt == "?")


def of_grading() -> list[Any]:
    endings = [json.loads(line) for line in ENDINGS.read_text("utf-8").split("\n") if line]
    cases = [(posed(ending), ending["response"]) for ending in endings]
    countdown = json.dumps({"numbers": [1, 2, 3], "target": 6})
    cases += [(Problem("p", "report", "?", countdown, COUNTDOWN), said) for said in COUNTDOWNS]
    asked, found = Asked(), []
    for problem, response in cases:
        grader = Grader({problem.problem_id: problem}, asked)
        found.append(
            [
                asdict(grader.grade(problem.problem_id, response, truncated, opened=opened))
                for truncated in (False, True)
                for opened in (False, True)
            ]
        )
    return [*found, *asked.noted]


def of_answers() -> list[Any]:
    def read(answer: str, text: str) -> Any:
        try:
            return read_answer(answer, text, BEHAVIOURS).spans
        except UnreadableAnswerError as error:
            return str(error)

    return [read(answer, text) for text in (TEXTS[0], TEXTS[3]) for answer in ANSWERS]


OUTPUTS: dict[str, Callable[[], list[Any]]] = {
    "sentences": of_sentences,
    "grading": of_grading,
    "answers": of_answers,
}


def test_every_rule_is_held() -> None:
    assert OUTPUTS.keys() == _RULES.keys() == json.loads(RECORD.read_text("utf-8")).keys()


@pytest.mark.parametrize("rule", OUTPUTS)
def test_a_rule_says_what_its_version_said(rule: str) -> None:
    known = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    own, version = known.get(rule, {"version": 0}), _RULES[rule]
    found = {"version": version, "digest": fingerprint(OUTPUTS[rule]())}
    asked = os.environ.get("RECORD_RULES")
    if asked and (version > own["version"] or asked == "corpus"):
        known[rule] = own = found
        RECORD.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    assert found == own, f"{rule} reads otherwise: raise _RULES[{rule!r}], then record (see above)"
