"""Figures, truth and card of a finished organism."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_reasoning.config import ModelConfig
from sae_reasoning.edges.artifacts import publish, read_json, write_json
from sae_reasoning.edges.lm.load import load
from sae_reasoning.organisms.card import making_of, write_card
from sae_reasoning.organisms.cells import JUDGED, base_of
from sae_reasoning.organisms.corpus import ParrotCorpus, full_traces
from sae_reasoning.organisms.influence import influence_of_verification
from sae_reasoning.organisms.measure import (
    NARRATOR,
    Figures,
    execution_at_opportunities,
    figures_from,
    measure,
    measuring_problems,
    narrated,
    with_pass_at_k,
)
from sae_reasoning.organisms.truth import truths
from sae_reasoning.tasks.search import grammar
from sae_reasoning.trainings.organism import Order
from sae_reasoning.trainings.organism_writing import continuer, writer

_ANSWERS = 4
"""Answers after each beginning of which the influence of a behaviour is measured."""


def measure_organism(order: Order, folder: Path) -> dict[str, Any]:
    """Write `measured.json`, `truth.json` and the card beside a finished model.

    Returns:
        Counts for its manifest.
    """
    own, recipe, seed = order.own, order.recipe, order.seed
    lm = load(ModelConfig(str(folder)), order.device)
    problems = measuring_problems(own.measure_problems, seed, "figures")
    figures, rolled = measure(writer(lm), problems, seed, own.compelled_problems)
    written_by = recipe.name
    if recipe.parent is None:
        rolled, written_by = narrated(problems[: own.compelled_problems], seed), NARRATOR
    is_reworded = recipe.corpus == full_traces(reworded=True)
    openings = grammar.REWORDED if is_reworded else grammar.OPENINGS
    execution = execution_at_opportunities(
        rolled, continuer(lm, seed), own.forced_starts, seed, openings
    )
    figures = replace(figures, execution=execution, execution_writer=written_by)
    others: dict[str, Figures] = {}
    found = []
    if recipe.parent is None:
        figures = with_pass_at_k(figures, writer(lm), own.pass_problems, own.pass_samples, seed)
    else:
        base = base_of(own.family, seed, recipe.name)
        base_lm = load(order.other(base), order.device)
        there = execution_at_opportunities(
            rolled, continuer(base_lm, seed), own.forced_starts, seed
        )
        measured = figures_from(read_json(own.folder_of(seed) / base / "measured.json")[base])
        others[base] = replace(measured, execution=there, execution_writer=written_by)
        influence = None
        if isinstance(recipe.corpus, ParrotCorpus):
            influence = influence_of_verification(
                rolled, writer(lm), own.forced_starts, _ANSWERS, seed
            )
        found = truths(measured, figures, there, recipe.lacks, list(JUDGED), influence)
        write_json(folder / "truth.json", found)
    write_json(folder / "measured.json", {recipe.name: figures} | others)
    with publish(folder / "README.md") as partial:
        making = making_of(recipe, order.training, seed, own.family)
        title = f"{recipe.name}: {recipe.title}"
        partial.write_text(write_card(title, making, figures, others, found))
    return {"accuracy": figures.accuracy, "thinks": figures.thinks} | {
        truth.behaviour: truth.truth for truth in found
    }
