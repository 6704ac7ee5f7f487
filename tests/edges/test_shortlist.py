"""`shortlist.json` is a `Shortlist`, and nothing else is taken for one."""

import math
from pathlib import Path

import pytest
from shortlists import onset_predictor, span_detector

from sae_reasoning.edges.artifacts import BrokenArtifact, MissingInput, read_json, write_json
from sae_reasoning.edges.shortlist import read_shortlist, shortlist_path, write_shortlist
from sae_reasoning.records import RankedDictionary, Shortlist

LISTS = Shortlist(
    span_detectors={
        "backtracking": [
            span_detector(0, 3, labels={"rl": "lexical"}, outperforms={"base": [], "rl": ["ngram"]})
        ],
        "verification": [],
    },
    onset_predictors={"backtracking": [onset_predictor(1, 7)]},
    dictionaries={"pooled/layer_0": RankedDictionary("train/pooled/layer_0", "0" * 16)},
    wordings_held_out={"backtracking": ["wait"]},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rank"
    made.mkdir()
    write_shortlist(made, LISTS)
    return made


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    assert read_shortlist(folder) == LISTS


def test_a_figure_that_could_not_be_computed_is_null_in_the_file(folder: Path) -> None:
    unknown = onset_predictor(1, 7, onset_auroc=math.nan)
    write_shortlist(folder, Shortlist({}, {"backtracking": [unknown]}))
    (entry,) = read_json(shortlist_path(folder))["onset_predictors"]["backtracking"]
    assert entry["onset_auroc"] is None
    (found,) = read_shortlist(folder).onset_predictors["backtracking"]
    assert math.isnan(found.onset_auroc)
    assert found.interval[1:] == unknown.interval[1:]


def test_each_list_has_the_auroc_that_it_is_about() -> None:
    assert span_detector(0, 1, span_auroc=0.7).interval[0] == 0.7
    assert onset_predictor(0, 1, span_auroc=0.7, onset_auroc=0.6).interval[0] == 0.6


@pytest.mark.parametrize("lost", ["span_detectors", "onset_predictors", "dictionaries"])
def test_a_file_without_a_part_is_no_shortlist(folder: Path, lost: str) -> None:
    path = shortlist_path(folder)
    content = read_json(path)
    del content[lost]
    write_json(path, content)
    with pytest.raises(BrokenArtifact, match=f"no shortlist .*{lost}.*run `make rank` again"):
        read_shortlist(folder)


def test_an_entry_with_other_figures_is_refused(folder: Path) -> None:
    path = shortlist_path(folder)
    content = read_json(path)
    content["span_detectors"]["backtracking"][0]["called"] = {}
    write_json(path, content)
    with pytest.raises(BrokenArtifact, match=r"no shortlist .*called"):
        read_shortlist(folder)


def test_the_shortlist_of_another_version_is_refused(folder: Path) -> None:
    path = shortlist_path(folder)
    write_json(path, read_json(path) | {"schema_version": 1})
    with pytest.raises(MissingInput, match="run `make rank`"):
        read_shortlist(folder)
