"""Problems of other worlds: longer paths, new names."""

import io

import pytest

from sae_reasoning.config import Config, ConfigError, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.traces import traces
from sae_reasoning.organisms.world import NEW_PLACES, PLACES, parse_prompt


def test_names_that_a_tokenizer_does_not_know_are_refused(tiny_config: Config) -> None:
    tiny_config.traces.places = "new"
    with pytest.raises(ConfigError, match=r"pair\.base\.path=.* doesn't know every word.*known"):
        traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))


def test_pieces_spell_new_names_on_longer_paths(
    tiny_config: Config, tiny_neox_pair: PairConfig
) -> None:
    tiny_config.pair = tiny_neox_pair
    tiny_config.traces.places = "new"
    tiny_config.traces.min_edges, tiny_config.traces.max_edges = 6, 8
    traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    made = read_traces(tiny_config.folder / "traces" / "traces.parquet")
    for trace in made:
        problem = parse_prompt(trace.prompt)
        assert set(problem.entries) <= set(NEW_PLACES)
        assert not set(problem.entries) & set(PLACES)
        assert len(problem.entries) >= 7
