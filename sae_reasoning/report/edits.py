"""Effects of edits on a latent's behaviours, and texts without and with an edit, aligned.

An edit changes a set of latents; the effects shown for a latent are of the sets that hold it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.steering.conditions import ABLATE, EDIT, NONE
from sae_reasoning.steering.effects import EDIT_KEYS
from sae_reasoning.steering.findings import (
    main_edits,
    of_the_text,
    off_target,
    own_effects,
)
from sae_reasoning.texts import shown

NUM_TEXTS = 3
"""Of the texts that an edit changed, drawn at random, in each model."""
_OF_EDIT = ["model", *EDIT_KEYS]
_CHANGE = ["difference", "low", "high", "n"]
_SETS = [
    *("model", "behaviour", "edit", "dose", "set_size", "where", "found_by", "without", "value"),
    *(*_CHANGE, "q", "coherent", "damaged", "unknown", "significant"),
]
_BESIDE = ["model", "behaviour", "condition", "value", *_CHANGE, "num_draws"]
_DOSES = ["model", "behaviour", "edit", "condition", "dose", *_CHANGE]
_OFF_TARGET = ["model", "behaviour", "affected", *_CHANGE, "q"]
_TEXT = ["model", "behaviour", "part", "without", "value", *_CHANGE]
_SHORT_RUN = 2
"""Words: a run of so few equal words between differing ones counts as differing."""
_MAX_TEXT = 4000

Names = tuple[str, ...]
"""Latents as `layer:latent`."""
Piece = tuple[str, str]
"""Some text, and the behaviour whose span holds it or ""."""


@dataclass(frozen=True)
class Aligned:
    """A stretch of two texts.

    Attributes:
        same: Whether they're equal.
        left: Pieces of the first.
        right: Of the second; empty where they're equal.
    """

    same: bool
    left: tuple[Piece, ...]
    right: tuple[Piece, ...]


@dataclass(frozen=True)
class Pair:
    """A problem's texts without an edit and with it.

    Attributes:
        model: Who wrote.
        behaviour: Whose latents were edited.
        edit: What was done.
        problem: Its name.
        prompt: What was asked.
        correct: Whether the answer is right, before and after.
        starts: How often the behaviour starts, before and after.
        rows: The texts, aligned.
        differing: Problems whose text the edit changed.
        problems: All of them.
    """

    model: str
    behaviour: str
    edit: str
    problem: str
    prompt: str
    correct: tuple[bool | None, bool | None]
    starts: tuple[int, int]
    rows: tuple[Aligned, ...]
    differing: int
    problems: int


class Edits:
    """The tables of `ablate`, by latent.

    Args:
        effects: `effects.parquet`.
        doses: Points of dose–response curves, as `dose_curves` makes them.
        generations: `generations.parquet`.
        seed: Of what is drawn at random.
    """

    def __init__(
        self,
        effects: pd.DataFrame,
        doses: pd.DataFrame,
        generations: pd.DataFrame,
        seed: int = 0,
    ) -> None:
        own = own_effects(effects)
        self._without = own[own.condition == NONE].set_index(_OF_EDIT).value
        self._sets = own[own.condition == EDIT]
        main = main_edits(effects)
        keys = main[main.condition == EDIT].drop_duplicates(_OF_EDIT)
        self._main = keys[[*_OF_EDIT, "latents"]]
        self._beside = main_edits(own)
        self._doses = doses
        self._off = off_target(main)
        self._text = of_the_text(main)
        self._generations, self._seed = generations, seed
        self._pairs: dict[tuple[Any, ...], list[Pair]] = {}

    def of(self, latent: str) -> dict[str, list[Any]]:
        """Figures and texts of the sets that hold a latent.

        Args:
            latent: As `layer:latent`.
        """
        held = self._sets[_holds(self._sets, latent)]
        main = self._main[_holds(self._main, latent)]
        edited = set(zip(main.model, main.behaviour, strict=True))

        def of_main(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
            here = [key in edited for key in zip(table.model, table.behaviour, strict=True)]
            rows: list[dict[str, Any]] = table.loc[here, columns].to_dict("records")
            return rows

        without = [float(self._without[key]) for key in _keys(held)]
        told = {name: list(map(_plain_bool, held[name])) for name in ("coherent", "significant")}
        held = held.assign(without=without, **told)
        return {
            "sets": held[_SETS].to_dict("records"),
            "beside": of_main(self._beside, _BESIDE),
            "doses": of_main(self._doses, _DOSES),
            "off_target": [
                row | {"affected": shown(row["affected"])}
                for row in of_main(self._off, _OFF_TARGET)
            ],
            "text": of_main(self._text, _TEXT),
            "texts": [asdict(pair) for key in _keys(main) for pair in self._texts(key)],
        }

    def _texts(self, key: tuple[Any, ...]) -> list[Pair]:
        if key not in self._pairs:
            named = dict(zip(_OF_EDIT, key, strict=True))
            self._pairs[key] = text_pairs(self._generations, named, self._seed)
        return self._pairs[key]


def _keys(edits: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    return edits[_OF_EDIT].itertuples(index=False, name=None)


def text_pairs(generations: pd.DataFrame, edit: Mapping[str, Any], seed: int) -> list[Pair]:
    """Some of the problems whose text an edit changed, drawn at random.

    Args:
        generations: Rollouts of all conditions.
        edit: Model and keys of the edit.
        seed: Of the draw.
    """
    own = generations[(generations.model == edit["model"]) & (generations["sample"] == 0)]
    before = own[own.condition == NONE].drop_duplicates("problem_id").set_index("problem_id")
    is_edit = np.logical_and.reduce([own[name] == edit[name] for name in EDIT_KEYS])
    after = own[is_edit & (own.condition == EDIT)].set_index("problem_id")
    problems = [name for name in after.index if name in before.index]
    differing = [name for name in problems if before.text[name] != after.text[name]]
    order = np.random.default_rng(seed).permutation(len(differing))
    behaviour = str(edit["behaviour"])
    dose = "" if edit["edit"] == ABLATE else f" to {edit['dose']:g} × their maximum"
    return [
        Pair(
            model=str(edit["model"]),
            behaviour=behaviour,
            edit=f"{edit['edit']}{dose}, {edit['set_size']} latents, {edit['where']}",
            problem=shown(name),
            prompt=shown(before.prompt[name]),
            correct=(_plain_bool(before.correct[name]), _plain_bool(after.correct[name])),
            starts=(_starts(before.spans[name], behaviour), _starts(after.spans[name], behaviour)),
            rows=tuple(
                aligned(before.text[name], before.spans[name], after.text[name], after.spans[name])
            ),
            differing=len(differing),
            problems=len(problems),
        )
        for name in (differing[place] for place in order[:NUM_TEXTS])
    ]


def aligned(
    first: str, first_spans: Sequence[Mapping[str, Any]], second: str, second_spans: Sequence[Any]
) -> list[Aligned]:
    """Two texts in stretches that are equal and stretches that differ, by words."""
    left, right = _words(first), _words(second)
    found = SequenceMatcher(None, [w for w, _ in left], [w for w, _ in right], autojunk=False)
    rows: list[tuple[bool, int, int, int, int]] = []
    for tag, a, b, c, d in found.get_opcodes():
        is_first = not rows and a == 0
        same = tag == "equal" and (b - a > _SHORT_RUN or is_first or b == len(left))
        if rows and rows[-1][0] == same:
            rows[-1] = (same, rows[-1][1], b, rows[-1][3], d)
        else:
            rows.append((same, a, b, c, d))
    return [
        Aligned(
            same,
            tuple(_pieces(left[a:b], first_spans)),
            () if same else tuple(_pieces(right[c:d], second_spans)),
        )
        for same, a, b, c, d in rows
    ]


def _words(text: str) -> list[tuple[str, int]]:
    """Words with the blanks before them, and where each begins."""
    found = [(m.group(), m.start(1)) for m in re.finditer(r"\s*(\S+)", text[:_MAX_TEXT])]
    if len(text) > _MAX_TEXT:
        found.append((f" … ({len(text) - _MAX_TEXT:,} more characters)", len(text)))
    return found


def _pieces(
    words: Sequence[tuple[str, int]], spans: Sequence[Mapping[str, Any]]
) -> Iterator[Piece]:
    """Text with the behaviour whose span holds it, neighbours of one span together."""
    text, last = "", None
    for word, start in words:
        span = next((s for s in spans if s["char_start"] <= start < s["char_end"]), None)
        if span is not last and text:
            yield shown(text, _MAX_TEXT), shown(last["behaviour"]) if last else ""
            text = ""
        text, last = text + word, span
    if text:
        yield shown(text, _MAX_TEXT), shown(last["behaviour"]) if last else ""


def _starts(spans: Sequence[Mapping[str, Any]], behaviour: str) -> int:
    return sum(span["behaviour"] == behaviour for span in spans)


def _plain_bool(value: Any) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _holds(table: pd.DataFrame, latent: str) -> list[bool]:
    """Which rows' sets hold a latent."""
    return [latent in str(names).split() for names in table.latents]
