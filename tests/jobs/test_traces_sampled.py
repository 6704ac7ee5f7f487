"""What models wrote is what is stored: its tokens, and those that ended it."""

import io
import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
from transformers import GenerationConfig

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.ending import find_end_ids
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import encode_prompt, encode_response, load, said_configs
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.traces import traces
from sae_reasoning.steering.noise import Noise, keyed_sampler

NUM_ENDS = 25


@pytest.fixture
def cfg(tiny_config: Config, tiny_neox_pair: PairConfig, tmp_path: Path) -> Config:
    """Questions to byte-pair models that babble; the RL model's generation config lists ends."""
    source = tmp_path / "questions.jsonl"
    rows = [{"question": f"What is {n} and 1?", "answer": str(n + 1)} for n in range(4)]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tiny_config.pair = deepcopy(tiny_neox_pair)
    rl = shutil.copytree(tiny_neox_pair.rl.path, tmp_path / "rl")
    GenerationConfig(eos_token_id=list(range(60, 60 + NUM_ENDS))).save_pretrained(rl)
    tiny_config.pair.rl.path = str(rl)
    part = tiny_config.traces
    part.source, part.num_problems, part.max_new_tokens = str(source), 4, 24
    part.base_samples = part.rl_samples = 4
    part.cues = {behaviour: ["wait"] for behaviour in tiny_config.behaviours}
    part.__post_init__()
    return tiny_config


def test_stored_tokens_are_those_that_were_sampled_and_what_ended_them(cfg: Config):
    traces(cfg, tracker=NullTracker(), console=Console(io.StringIO()))
    made = read_traces(cfg.folder / "traces" / "traces.parquet")
    numbers = sorted({trace.problem_id for trace in made})
    differing = ended = 0
    for writer, model in cfg.pair.readers.items():
        lm = load(model, "cpu")
        own = [trace for trace in made if trace.writer == writer]
        keys = Noise("traces", cfg.traces.seed).keys(
            [(numbers.index(t.problem_id), int(t.trace_id.rpartition("/")[2])) for t in own]
        )
        prompts = [encode_prompt(lm.tokenizer, trace.prompt) for trace in own]
        for rollout in generate(
            lm,
            prompts,
            sampler=keyed_sampler(keys, cfg.traces.temperature),
            max_new_tokens=24,
            batch_size=len(own),
        ):
            trace = own[rollout.row]
            end = () if rollout.end_id is None else (rollout.end_id,)
            assert trace.token_ids == (*prompts[rollout.row], *rollout.token_ids, *end)
            assert trace.text == lm.decode(list(rollout.token_ids))
            assert trace.truncated == (rollout.end_id is None)
            differing += encode_response(lm.tokenizer, trace.text)[0] != list(rollout.token_ids)
            ended += rollout.end_id in range(60, 60 + NUM_ENDS)
            assert writer == "rl" or rollout.end_id in (None, lm.tokenizer.eos_token_id)
    # Most of what is babbled isn't what the tokenizer would make of its text.
    assert differing > len(made) / 2
    assert ended > len(made) / 4


def test_ends_are_known_before_weights_are_loaded(cfg: Config):
    """As whoever else generates has to be told them."""
    for model in cfg.pair.readers.values():
        lm = load(model, "cpu")
        assert find_end_ids(lm.tokenizer, *said_configs(model)) == lm.end_ids
    assert len(load(cfg.pair.rl, "cpu").end_ids) == NUM_ENDS + 1
    assert len(load(cfg.pair.base, "cpu").end_ids) == 1
