import pytest
import torch
from behaviours.examples import made_up_trace

from sae_reasoning.behaviours.onset_attribution import attribute, draw_onsets, shortened


def test_attribution_is_activation_times_gradient_along_the_latent() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    gradients = torch.tensor([[2.0, 0.0], [1.0, -1.0]])
    values = torch.tensor([[3.0, 1.0], [0.5, 0.0]])
    latents = torch.tensor([[0, 2], [1, 0]])
    # 3 * 2 + 0; 0.5 * -1; 1 * (2 * 0.6)
    assert attribute(values, latents, gradients, directions).tolist() == pytest.approx(
        [6.0, -0.5, 1.2]
    )


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (0, (1, 2, 3, 4, 5)),
        (1, (5,)),
        (2, (1, 5)),
        (4, (1, 3, 4, 5)),
        (5, (1, 2, 3, 4, 5)),
        (9, (1, 2, 3, 4, 5)),
    ],
)
def test_a_shortened_text_keeps_its_first_token_and_its_last(
    most: int, kept: tuple[int, ...]
) -> None:
    assert shortened((1, 2, 3, 4, 5), most) == kept


def test_onsets_are_drawn_from_select_traces_of_both_writers_in_equal_parts() -> None:
    spans = [("a", start, start + 1) for start in range(5, 35, 2)]
    traces = [
        made_up_trace(i, spans=spans, writer=writer, split=split)
        for i in range(3)
        for writer in ("base", "rl")
        for split in ("select", "report")
    ]
    onsets = draw_onsets(traces, ["a"], 20, seed=0)
    assert [onset.writer for onset in onsets].count("base") == 10
    assert len(onsets) == 20
    assert all(onset.token_ids == tuple(range(len(onset.token_ids))) for onset in onsets)
    assert all(len(onset.token_ids) + 1 in range(6, 36) for onset in onsets)


def test_a_writer_with_few_opportunities_leaves_its_part_to_the_other() -> None:
    many = [("a", start, start + 1) for start in range(5, 35, 2)]
    traces = [
        made_up_trace(0, spans=many, writer="rl"),
        made_up_trace(1, spans=many[:2], writer="base"),
    ]
    writers = [onset.writer for onset in draw_onsets(traces, ["a"], 12, seed=0)]
    assert (writers.count("base"), writers.count("rl")) == (2, 10)
