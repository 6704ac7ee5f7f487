"""What edits did, texts side by side, and features in Neuronpedia's shape."""

import pandas as pd
from steering.test_findings import controls, experiment

from sae_reasoning.edges.pages import plain
from sae_reasoning.pages.latents import cell
from sae_reasoning.report.edits import Aligned, Edits, aligned, text_pairs
from sae_reasoning.report.neuronpedia import activations, feature
from sae_reasoning.report.reviews import Review, reviewed_real
from sae_reasoning.steering.effects import EDIT_KEYS
from sae_reasoning.steering.findings import dose_curves, doses

GENERATED = ["model", "sample", "condition", "problem_id", "text", "prompt", "correct", "spans"]


def test_texts_are_alike_until_the_edit_acts_and_moves_are_marked():
    spans = [{"char_start": 6, "char_end": 10, "behaviour": "backtracking"}]
    assert aligned("go on wait end .", spans, "go on then end .", []) == [
        Aligned(True, (("go on", ""),), ()),
        Aligned(False, ((" wait", "backtracking"),), ((" then", ""),)),
        Aligned(True, ((" end .", ""),), ()),
    ]


def test_texts_of_a_pair_are_of_the_same_problem_without_the_edit_and_with_it():
    keys = dict.fromkeys(EDIT_KEYS, "")
    edit = {"behaviour": "b", "edit": "ablate", "dose": 0.0, "set_size": 1, "first": 0}
    edit |= {"where": "all", "found_by": "rl"}
    common = {"model": "rl", "sample": 0, "prompt": "ask", "correct": True, "spans": []}
    rows = [
        common | keys | {"condition": "none", "problem_id": name, "text": "x y"} for name in "pq"
    ]
    rows += [
        common | edit | {"condition": "edit", "problem_id": name, "text": text}
        for name, text in (("p", "x z"), ("q", "x y"))
    ]
    (pair,) = text_pairs(pd.DataFrame(rows), {"model": "rl"} | edit, seed=0)
    assert (pair.problem, pair.differing, pair.problems) == ("p", 1, 2)


def test_a_set_with_no_controls_beside_it_is_said_to_have_none():
    """Of two sets that hold the latent, the smaller has controls."""
    larger = {"set_size": 2, "latents": "1:2 1:3", "taken": 2}
    found = experiment({"taken": 2}, *controls(8), larger)
    rollouts = pd.DataFrame([], columns=[*GENERATED, *EDIT_KEYS])
    done = Edits(found, dose_curves(doses(found)), rollouts).of("1:2")
    assert [(one["set_size"], one["coherent"], one["significant"]) for one in done["sets"]] == [
        *((1, True, True), (2, True, None))
    ]
    parts = {one["part"]: (one["without"], one["value"]) for one in done["text"]}
    assert {"accuracy", "repeated 3-grams", "compression", "length", "truncated"} <= set(parts)
    assert parts["accuracy"] == (1, 1)
    record = plain({"attacks": [], "sets": done["sets"]})
    assert [one["significant"] for one in record["sets"]] == [True, None]
    row = {"layer": 1, "latent": 2, "shortlist": "span_detectors", "behaviour": "backtracking"}
    row |= {"auroc": 0.9, "low": None, "high": None, "n": 3, "reviews": ""}
    page = cell(row, record, has_texts=False)
    assert [page.count(f"<td>{said}</td>") for said in ("yes", "no controls", "no")] == [1, 1, 0]


def test_a_latent_is_real_where_nobody_says_otherwise():
    def review(**calls: str) -> Review:
        return Review("", "r", {(0, int(k[1:]), "b"): call for k, call in calls.items()}, {})

    one, other = review(_1="real", _2="real", _3="lexical"), review(_2="unclear", _4="real")
    assert reviewed_real([one, other]) == {(0, 1, "b"), (0, 4, "b")}


def evidence(text: str) -> dict:
    example = {"band": "highest", "trace": "t", "writer": "rl", "tokens": [text, "end"]}
    example |= {"chosen": 1, "values": {"base": {}, "rl": {"1": 2.0, 1: 2.0}}}
    example["marks"] = [{"behaviour": text, "first": 0, "last": 1}]
    return {
        "examples": [example],
        "histogram": {
            "edges": [0, 1, 2],
            "counts": {"rl": [0, 1]},
            "active": {"rl": 1},
            "tokens": 4,
        },
        "output": {"top": [[text, 1.0]], "bottom": [["b", -1.0]], "edges": [0, 2], "counts": [3]},
        "neighbours": [{"latent": 5, "cosine": 0.5}],
        "companions": [{"latent": 6, "pearson": 0.25, "both": 2}],
    }


def test_a_feature_has_neuronpedias_fields_and_one_value_a_token():
    record = {"layer": 2, "latent": 7, "dictionary": "pooled/layer_2"}
    made = feature("model", "rl", record, evidence("a"))
    assert (made["modelId"], made["layer"], made["index"]) == (
        "model",
        "2-sae_reasoning-pooled",
        "7",
    )
    assert made["frac_nonzero"] == 0.25
    assert (made["pos_str"], made["neg_values"]) == (["a"], [-1.0])
    assert made["freq_hist_data_bar_values"] == [0.5, 1.5]
    assert made["correlated_features_pearson"] == [0.25]
    (one,) = activations("model", "rl", record, evidence("a"))
    assert one["values"] == [0.0, 2.0]
    assert (one["maxValue"], one["maxValueTokenIndex"], one["qualifyingTokenIndex"]) == (2.0, 1, 1)
    assert made["maxActApprox"] == 2.0
