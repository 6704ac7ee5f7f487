"""Edits on a pair that writes natural text in byte-level tokens."""

import io
import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from jobs.edited import make_dictionaries, run
from jobs.sums import pose_sums
from tiny_models import SHAPE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from sae_reasoning.config import Config, ModelConfig, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.create import new_llama, save_model
from sae_reasoning.edges.lm.load import describe, encode_response
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.ablate.plan import prepare, shares_of_opportunities
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.traces import traces
from sae_reasoning.opening import open_task
from sae_reasoning.steering.places import like_edited
from sae_reasoning.steering.positions import RANDOM_POSITIONS
from sae_reasoning.tasks.text.sentences import possible_starts

_SAID = (
    "So it is 3.",
    "Wait, maybe not.",
    "The box holds 4.5 in all.",
    'He said "no."',
    "Check: 2 and 2 make 4.",
    "It holds (as asked.)",
)


def thoughts(seed: int, begun: str = "") -> str:
    rng = random.Random(seed)
    return (
        begun
        + "".join(rng.choice(_SAID) + rng.choice([" ", " ", "\n\n"]) for _ in range(6)).strip()
    )


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [thoughts(seed) for seed in range(20)],
        trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=["<pad>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def taught(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model that has read such thoughts for some seconds, and babbles like them."""
    model = new_llama(SHAPE, tokenizer, 0)
    rows = [tokenizer(thoughts(seed)).input_ids[:48] for seed in range(200)]
    data = torch.tensor([row for row in rows if len(row) == 48])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        batch = data[torch.randint(len(data), (16,), generator=generator)]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def natural_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    root = tmp_path_factory.mktemp("natural")
    tokenizer = byte_level_tokenizer()
    model = taught(tokenizer)
    for name in ("base", "rl"):
        save_model(model, tokenizer, root / name, torch.float32)
    base, rl = (ModelConfig(path=str(root / name)) for name in ("base", "rl"))
    return PairConfig(name="natural", base=base, rl=rl)


@pytest.fixture
def natural(tiny_config: Config, natural_pair: PairConfig, tmp_path: Path) -> Callable[..., Config]:
    """A configuration with a file of traces; `base` and `rl` say what those begin with."""

    def make(base: str = "", rl: str = "") -> Config:
        rows = [
            {
                "problem_id": f"q{number}",
                "prompt": f"How many are {number} boxes?",
                "writer": writer,
                "text": thoughts(number, begun),
            }
            for number in range(12)
            for writer, begun in (("base", base if number % 2 else ""), ("rl", rl))
        ]
        source = tmp_path / "thoughts.jsonl"
        source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        cfg = tiny_config
        cfg.pair, cfg.behaviours = deepcopy(natural_pair), ["backtracking", "verification"]
        cfg.traces.source, cfg.traces.annotator = str(source), "cues"
        cfg.traces.cues = {"backtracking": ["wait"], "verification": ["check"]}
        own = cfg.ablate
        own.max_new_tokens, own.clamp_multiple, own.doses, own.set_sizes = 40, 1.0, [], []
        return cfg

    return make


def made(cfg: Config) -> Console:
    """Every stage up to the edits."""
    out = Console(stream=io.StringIO())
    make_before(cfg, out)
    run(cfg, out)
    return out


def make_before(cfg: Config, console: Console) -> None:
    """Every stage before the edits."""
    inputs = {"traces": traces(cfg, tracker=NullTracker(), console=console).fingerprint}
    inputs["cache"] = cache(cfg, tracker=NullTracker(), console=console).fingerprint
    inputs |= {model: describe(getattr(cfg.pair, model)).fingerprint for model in ("base", "rl")}
    make_dictionaries(cfg, inputs)


def test_random_positions_edit_as_often_as_the_edit_does_on_natural_text(
    natural: Callable[..., Config],
) -> None:
    cfg = natural()
    out = made(cfg)
    rows = read_table(cfg.folder / "ablate" / "generations.parquet")
    assert not rows.text.str.contains("<think>").any()
    assert rows.text.str.contains(r"\.").mean() > 0.5
    # A clamp changes every position at which it's made; of the behaviours' latents an ablation does
    # few.
    clamped = rows[rows.model == "base"].groupby("condition").num_edited_positions
    assert clamped.sum()[RANDOM_POSITIONS] > 0
    assert clamped.mean()[RANDOM_POSITIONS] == pytest.approx(clamped.mean()["edit"], rel=0.4)
    assert clamped.mean()["edit"] > 1.5
    # The beginning is a place where any behaviour could start; at random it's one like others.
    edits = rows[(rows.model == "base") & (rows.condition == "edit")]
    assert all(positions[0] == 0 for positions in edits.edited_positions)
    found = read_table(cfg.folder / "ablate" / "effects.parquet")
    edit = found[(found.condition == "edit") & (found.model == "base")].iloc[0]
    assert edit.random_positions_draws == 1
    assert "are no control there" not in out.stream.getvalue()
    assert "base begins with" not in out.stream.getvalue()


def test_the_share_of_random_positions_is_that_of_places_where_a_sentence_may_start(
    natural: Callable[..., Config],
) -> None:
    cfg = natural()
    traces(cfg, tracker=NullTracker(), console=Console(stream=io.StringIO()))
    own = read_traces(cfg.folder / "traces" / "traces.parquet")
    tokenizer = byte_level_tokenizer()
    hits = total = 0
    for trace in own:
        if (trace.split, trace.writer) == ("select", "base"):
            ends = [0, *(end for _, end in encode_response(tokenizer, trace.text)[1])]
            hits += len(set(ends) & set(possible_starts(trace.text)))
            total += len(ends)
    task, like = open_task(cfg, own), like_edited(own, "base", "")
    share = shares_of_opportunities(cfg, task, cfg.behaviours, like)
    assert share == dict.fromkeys(cfg.behaviours, hits / total)
    assert 0.02 < hits / total < 0.5
    # What is begun for a model that never begins so is held against its other traces.
    assert like_edited(own, "base", "<think>") == like


@pytest.mark.parametrize(
    ("base", "rl", "found"),
    [
        ("", "", ""),
        ("", "<think>\n", ""),
        ("<think>\n", "<think>\n", "<think>"),
    ],
)
def test_the_base_is_made_to_think_where_its_own_text_has_the_mark(
    natural: Callable[..., Config], base: str, rl: str, found: str
) -> None:
    assert begun(natural(base, rl)) == {"base": found, "rl": ""}


def begun(cfg: Config) -> dict[str, str]:
    """What responses begin with."""
    make_before(cfg, Console(stream=io.StringIO()))
    return prepare(cfg).begun


def test_a_template_that_opens_the_thought_leaves_nothing_to_write(
    natural: Callable[..., Config], tmp_path: Path
) -> None:
    cfg = natural("<think>\n", "<think>\n")
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}\n<think>\n{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    cfg.pair.base = ModelConfig(
        path=cfg.pair.base.path, tokenizer=str(tmp_path / "chat"), chat_template=True
    )
    assert begun(cfg) == {"base": "", "rl": ""}


def test_edits_are_at_the_places_where_a_sentence_may_start(natural: Callable[..., Config]) -> None:
    cfg = natural("<think>\n", "<think>\n")
    made(cfg)
    rows = read_table(cfg.folder / "ablate" / "generations.parquet")
    base = rows[rows.model == "base"]
    assert base.text.str.startswith("<think>").all()
    tokenizer = byte_level_tokenizer()
    edits = base[base.condition == "edit"]
    told = [_edited_at(tokenizer, row) for row in edits.itertuples()]
    agree = [one for one in told if one is not None]
    assert len(agree) > 3
    assert all(agree)


def test_edits_of_a_random_pair_are_graded_and_held_against_the_guard_of_text(
    tiny_config: Config, tmp_path: Path
) -> None:
    cfg = tiny_config
    pose_sums(cfg, tmp_path)
    cfg.behaviours = ["backtracking", "verification"]
    cfg.traces.cues = {"backtracking": ["wait"], "verification": ["check"]}
    own = cfg.ablate
    own.max_new_tokens, own.clamp_multiple, own.doses, own.set_sizes = 24, 1.0, [], []
    out = made(cfg)
    rows = read_table(cfg.folder / "ablate" / "generations.parquet")
    assert rows.correct.notna().all()
    assert rows.repeated_3grams.between(0, 1).all() and (rows.compression > 0).all()
    found = read_table(cfg.folder / "ablate" / "effects.parquet")
    assert {"repeated_3grams", "compression", "off_target/rate_per_opportunity"} <= set(
        found.outcome
    )
    edits = found[found.condition == "edit"]
    # Of three problems hardly anything is known, and it's said of what.
    assert edits.coherent.isna().any()
    assert edits.unknown[edits.coherent.isna()].str.len().gt(0).all()
    said = " ".join(out.stream.getvalue().split())
    assert "raise ablate.num_problems, ablate.samples or ablate.base_samples" in said


def _edited_at(tokenizer: PreTrainedTokenizerFast, row: object) -> bool | None:
    """Whether a rollout was edited exactly there; None where its text is cut in other tokens."""
    written = row.text.removeprefix("<think>").removeprefix(" ")
    ids, offsets = encode_response(tokenizer, written)
    if len(ids) != row.num_tokens or not row.truncated:
        return None
    ends = [7, *(8 + end for _, end in offsets)][:-1]
    starts = possible_starts(f"<think> {written}")
    return [k for k, end in enumerate(ends) if end in starts] == list(row.edited_positions)
