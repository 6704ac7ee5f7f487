"""When to steer, as it is kept for a run that goes on."""

import json
import math

import torch

from sae_reasoning.steering.readout import Foresight, LatentReader, OnsetClassifier, Readout
from sae_reasoning.steering.timing import Timing


def test_timing_is_read_from_its_record_as_it_was() -> None:
    torch.manual_seed(0)
    reader = LatentReader({}, {})
    one, other = (Readout(torch.randn(4, 3), torch.randn(3)) for _ in range(2))
    made = Timing(
        OnsetClassifier(reader, one),
        Foresight(reader, other, torch.randn(4), 0.1),
        {"oracle": [0.3, -math.inf], "gate": [1 / 3, 0.0]},
        {"places": 7},
    )
    found = Timing.of(json.loads(json.dumps(made.record(), allow_nan=False)), reader)
    assert (found.thresholds, found.found) == (made.thresholds, made.found)
    latents = torch.rand(5, 4)
    assert torch.equal(found.by_rl.readout(latents), one(latents))
    for before, after in zip(
        made.by_base.of_latents(latents), found.by_base.of_latents(latents), strict=True
    ):
        assert torch.equal(before, after)
