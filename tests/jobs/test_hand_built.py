"""Latents built by hand into a real SAE, read as `rank` reads them, come out as what they are."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from jobs.hand_built import KINDS, Roles, names, reader, train_dictionary, write_traces

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.robustness.outcomes import LABELS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SAE that each draw appends its latents to."""
    folder = tmp_path_factory.mktemp("hand_built") / "sae"
    rng = np.random.default_rng(1000)
    lm = reader()
    traces = [t for _ in range(3) for t in write_traces(lm, Roles.drawn(rng), rng)]
    train_dictionary(lm, traces, folder)
    return folder


def _right(trained: Path, folder: Path, draws: range) -> Counter[str]:
    config = Config(pair=PairConfig(name="hand_built"), behaviours=["a"], layers=[0])
    config.rank.bootstrap = 200
    config.cache.token_budget = 1 << 14
    right: Counter[str] = Counter()
    for seed in draws:
        for kind, name in names(config, trained, folder / str(seed), seed).items():
            right[kind] += name == KINDS[kind]
    return right


@pytest.mark.slow
def test_in_some_draws_every_latent_comes_out_as_what_it_is(trained: Path, tmp_path: Path) -> None:
    assert set(KINDS.values()) < set(LABELS)
    assert _right(trained, tmp_path, range(2)) == dict.fromkeys(KINDS, 2)


@pytest.mark.slow
def test_in_200_draws_19_of_20_of_each_kind_come_out_as_what_they_are(
    trained: Path, tmp_path: Path
) -> None:
    right = _right(trained, tmp_path, range(200))
    for kind in KINDS:
        assert right[kind] >= 190, right
