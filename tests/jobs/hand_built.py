"""Latents built by hand, in a real SAE of a reader whose residual stream is written out.

The reader is a program in the place of a decoder block: what it writes of each token is the token,
the pair with the one before, the place, the size of the problem, whether a behaviour is under way
(two marks stood in the sentence before, wherever), and some noise. So it can be asked to read any
text, and what a latent that reads one of these is can't be doubted.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedModel

from sae_reasoning.behaviours.matched_windows import draw_matched_windows
from sae_reasoning.behaviours.streams import MaximaStream
from sae_reasoning.behaviours.windows import response_rows
from sae_reasoning.behaviours.wordings import draw_wordings, hold_out
from sae_reasoning.config import Config, TrainConfig
from sae_reasoning.edges.artifacts import read_json, write_json
from sae_reasoning.edges.lm.create import SpecialTokens, as_learner, word_tokenizer
from sae_reasoning.edges.lm.load import LanguageModel, encode_response
from sae_reasoning.edges.lm.read import residuals_in_memory
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_dictionary
from sae_reasoning.edges.sae_training import train_sae
from sae_reasoning.readings.data import active
from sae_reasoning.readings.readers import ReadingModel
from sae_reasoning.records import SPAN_DETECTORS, Annotation, Opportunity, Span, Trace
from sae_reasoning.robustness.attacks import attack_span_detectors
from sae_reasoning.robustness.outcomes import (
    CONTEXTUAL,
    LEXICAL,
    PARTLY_LEXICAL,
    POSITIONAL,
    WEAK,
    Target,
    Thresholds,
    add_labels,
)
from sae_reasoning.robustness.paraphrase import attack_with_paraphrase
from sae_reasoning.robustness.readers import Reader
from sae_reasoning.robustness.word_attacks import attack_with_words
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.align import Rollout
from sae_reasoning.traces.paraphrase import Paraphraser

KINDS = {
    "a word that stands elsewhere too": LEXICAL,
    "a word of the behaviour only": LEXICAL,
    "a pair of words": PARTLY_LEXICAL,
    "the behaviour": CONTEXTUAL,
    "the behaviour's first word, whichever": CONTEXTUAL,
    "a late place": POSITIONAL,
    "a long trace": POSITIONAL,
    "lots": WEAK,
}
"""What each latent responds to, and its right label."""

MOVE = "a"
_SIZES = ("short", "middling", "long")
_LENGTHS = {"short": 50, "middling": 90, "long": 150}
_MARKS = ("left", "right")
_OPENERS = ("well", "so", "now", "then", "hm", "look")
_PLAIN = tuple("moss oak fern elm reed ash yew fir box gorse ivy rue dock hop".split())
_OWN, _OTHER = "alder", tuple("tansy sorrel clover vetch".split())
_STOP = "."
_SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>")
_SPECIAL = SpecialTokens(*_SPECIAL_WORDS)
_WORDS = (*_SPECIAL_WORDS, *_SIZES, *_MARKS, *_OPENERS, *_PLAIN, _OWN, *_OTHER, _STOP)
_PROMPT = 30
_PAIR_CODES, _LOTS = 64, len(KINDS)
_FAINT = {"pair": 0.2, "lot": 0.05}
"""Size of what a small SAE couldn't explain otherwise."""


class _Written(nn.Module):
    """Writes the residual stream of given tokens."""

    def __init__(self, ids: dict[str, int], salt: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.num_words, self.ids, self.salt = max(ids.values()) + 1, ids, salt
        codes = torch.randn(self.num_words**2, _PAIR_CODES, generator=generator)
        self.codes = codes / codes.norm(dim=1, keepdim=True)
        self.width = self.num_words + _PAIR_CODES + 4 + _LOTS
        self.basis = torch.linalg.qr(torch.randn(self.width, self.width, generator=generator))[0]

    def forward(self, ids: Tensor) -> Tensor:
        before = nn.functional.pad(ids[:, :-1], (1, 0))
        is_stop = ids == self.ids[_STOP]
        sentence = nn.functional.pad(is_stop.cumsum(1)[:, :-1], (1, 0))
        place = torch.arange(ids.shape[1]).expand_as(ids)
        in_response = place >= _PROMPT
        marks = torch.stack(
            [
                torch.zeros_like(ids).scatter_add(
                    1, sentence, ((ids == self.ids[mark]) & in_response).long()
                )
                for mark in _MARKS
            ]
        )
        both = (marks > 0).all(0)
        is_move = both.gather(1, (sentence - 1).clamp(min=0)) & (sentence > 0) & ~is_stop
        sizes = torch.zeros(self.num_words)
        for number, size in enumerate(_SIZES):
            sizes[self.ids[size]] = number / 2
        parts = [
            nn.functional.one_hot(ids, self.num_words).float(),
            _FAINT["pair"] * self.codes[before * self.num_words + ids],
            ((place - _PROMPT) / 150).float()[..., None],
            sizes[ids[:, 1:2]].expand_as(ids)[..., None].clone(),
            is_move.float()[..., None],
            (before == self.ids[_STOP]).float()[..., None],
            _FAINT["lot"] * self._lots(ids, place),
        ]
        return torch.cat(parts, dim=2) @ self.basis

    def _lots(self, ids: Tensor, place: Tensor) -> Tensor:
        """Normal numbers that hang on all tokens so far."""
        key = (ids + 1).mul(2654435761).cumsum(1) + 40503 * place + 7919 * self.salt
        key = key[..., None] + 104729 * torch.arange(1, _LOTS + 1)
        for shift, factor in ((16, 73244475), (15, 73244475), (16, 1)):
            key = ((key ^ (key >> shift)) * factor) & 0xFFFFFFFF
        share = (key.double() + 0.5) / 2**32
        return (torch.erfinv(2 * share - 1) * 2**0.5).float()

    def readout(self, **weights: float | Tensor) -> Tensor:
        """The direction along which parts of the stream, by name, add up so."""
        blocks = {
            "token": torch.zeros(self.num_words),
            "pair": torch.zeros(_PAIR_CODES),
            "place": torch.zeros(1),
            "size": torch.zeros(1),
            "behaviour": torch.zeros(1),
            "first": torch.zeros(1),
            "lot": torch.zeros(_LOTS),
        }
        for name, weight in weights.items():
            blocks[name] = blocks[name] + weight / _FAINT.get(name, 1.0)
        return torch.cat(list(blocks.values())) @ self.basis


class _Base(nn.Module):
    def __init__(self, written: _Written) -> None:
        super().__init__()
        self.layers = nn.ModuleList([written])

    def forward(self, input_ids: Tensor, use_cache: bool) -> Tensor:
        del use_cache
        return self.layers[0](input_ids)


class _Reader(PreTrainedModel):
    """A program where transformers keeps a model."""

    config_class = LlamaConfig
    base_model_prefix = "model"

    def __init__(self, config: LlamaConfig, written: _Written) -> None:
        super().__init__(config)
        self.model = _Base(written)


def reader(salt: int = 0) -> LanguageModel:
    """The reader; its lots hang on `salt`."""
    tokenizer = word_tokenizer(_WORDS, _SPECIAL)
    written = _Written(tokenizer.get_vocab(), salt)
    config = LlamaConfig(
        vocab_size=written.num_words,
        hidden_size=written.width,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    return as_learner(_Reader(config, written), tokenizer, "written out", "cpu")


@dataclass(frozen=True)
class Roles:
    """Words that a draw's latents answer to: one that stands everywhere, and a pair."""

    word: str
    pair: tuple[str, str]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Roles":
        """Three plain words."""
        word, first, second = rng.choice(_PLAIN, 3, replace=False).tolist()
        return cls(word, (first, second))


def write_traces(lm: LanguageModel, roles: Roles, rng: np.random.Generator) -> list[Trace]:
    """Traces whose behaviours come late, in long ones, and use some words more than other text."""
    problems = {"select": 60, "report": 110}
    return [
        _trace(lm, roles, rng, f"{split}{number % of}", number, split)
        for split, of in problems.items()
        for number in range(2 * of if split == "report" else of)
    ]


def _trace(
    lm: LanguageModel, roles: Roles, rng: np.random.Generator, problem: str, number: int, split: str
) -> Trace:
    size = str(rng.choice(_SIZES))
    length = _LENGTHS[size]
    prompt = [size, *_said(rng, roles, _PROMPT - 3, is_move=False), _STOP]
    words: list[str] = []
    spans, opportunities = [], []
    comes_move = False
    while len(words) < length - 12:
        late, long = (len(words) + 3) / length, length / 150
        is_move, comes_move = comes_move, not comes_move and rng.random() < 0.9 * late * long**1.5
        said = _said(rng, roles, int(rng.integers(4, 9)), is_move=is_move)
        marks = _MARKS if comes_move else _MARKS[: int(rng.random() < 0.3)]
        for mark in marks:
            said.insert(int(rng.integers(len(said) + 1)), mark)
        if is_move:
            said.insert(0, str(rng.choice(_OPENERS)))
        start = len(" ".join(words)) + bool(words)
        opportunities.append(Opportunity(MOVE, max(start - 1, 0), is_move))
        if is_move:
            spans.append(Span(MOVE, start, start + len(" ".join(said))))
        words += [*said, _STOP]
    text = " ".join(words)
    ids, offsets = encode_response(lm.tokenizer, text)
    prompt_ids = lm.tokenizer(" ".join(prompt)).input_ids
    rollout = Rollout(prompt_ids, ids, offsets, None, text, truncated=False)
    return rollout.annotated(
        Problem(problem, split, " ".join(prompt)),
        Annotation(tuple(spans), tuple(opportunities), None),
        annotator="hand",
        writer="rl",
        model="rl",
        sample=f"{split}{number}",
    )


def _said(rng: np.random.Generator, roles: Roles, num: int, *, is_move: bool) -> list[str]:
    """Words of a sentence, or of some; a behaviour leans on some of them."""
    words: list[str] = []
    while len(words) < num:
        if rng.random() < (0.25 if is_move else 0.06) and num - len(words) > 1:
            words += roles.pair
        elif rng.random() < (0.3 if is_move else 0.08):
            words.append(roles.word)
        elif is_move and rng.random() < 0.3:
            words.append(_OWN)
        else:
            words.append(str(rng.choice([*_PLAIN, *_OPENERS, *_OTHER])))
    return words


def paraphraser(roles: Roles) -> Paraphraser:
    """Says a behaviour with another opener, and in other words than those that it leans on."""
    others = dict(zip((roles.word, *roles.pair, _OWN), _OTHER, strict=True))

    def reword(behaviour: str, words: str, rng: np.random.Generator) -> str | None:
        first, *rest = words.split(" ")
        opener = str(rng.choice([o for o in _OPENERS if o != first]))
        return " ".join([opener, *(others.get(word, word) for word in rest)])

    return reword


def train_dictionary(lm: LanguageModel, traces: list[Trace], folder: Path) -> Dictionary:
    """A small BatchTopK SAE of the stream, in sae-lens's files; read back it is a JumpReLU."""
    first = np.array([trace.num_prompt_tokens - 1 for trace in traces])
    rows = residuals_in_memory(lm, [trace.token_ids for trace in traces], first, [0], 1 << 14)[0]
    config = TrainConfig(steps=600, batch_size=512, lr=3e-3)
    config.sae.architecture, config.sae.d_sae, config.sae.k = "batchtopk", 96, 6
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[Tensor]:
        while True:
            yield rows[torch.randint(len(rows), (512,), generator=generator)]

    dictionary = train_sae(config, batches(), d_in=rows.shape[1], seed=0)
    dictionary.save(folder)
    return dictionary


def append_latents(
    trained: Path, folder: Path, lm: LanguageModel, roles: Roles, rng: np.random.Generator
) -> Dictionary:
    """The SAE with one more latent of each of `KINDS`, with misses and false alarms."""
    written = lm.model.model.layers[0]
    ids = written.ids
    pair = written.codes[ids[roles.pair[0]] * written.num_words + ids[roles.pair[1]]]

    def token(word: str) -> Tensor:
        return nn.functional.one_hot(torch.tensor(ids[word]), written.num_words).float()

    read = [
        ({"token": token(roles.word)}, 0.5),
        ({"token": token(_OWN)}, 0.5),
        ({"pair": pair}, 0.5),
        ({"behaviour": 1.0}, 0.5),
        ({"behaviour": 1.0, "first": 1.0}, 1.5),
        ({"place": 3.0}, 3 * 80 / 150),
        ({"size": 1.0}, 0.75),
        ({}, 0.15),
    ]
    columns, cuts = [], []
    for number, (weights, cut) in enumerate(read):
        lots = torch.zeros(_LOTS)
        lots[number] = float(rng.uniform(0.2, 0.28))
        columns.append(written.readout(**weights, lot=lots))
        cuts.append(cut)
    gain = float(rng.uniform(0.3, 0.6))
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    path, num = folder / "sae_weights.safetensors", len(KINDS)
    tensors = load_file(path)
    encoder = torch.stack(columns, dim=1)
    cfg = read_json(folder / "cfg.json")
    taken_off = tensors["b_dec"] @ encoder * cfg["apply_b_dec_to_input"]
    more = {
        "W_enc": gain * encoder,
        "b_enc": gain * (taken_off - torch.tensor(cuts)),
        "W_dec": nn.functional.normalize(encoder, dim=0).T,
        "threshold": torch.zeros(num),
    }
    for name, rows in more.items():
        tensors[name] = torch.cat([tensors[name], rows], dim=1 if name == "W_enc" else 0)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    write_json(folder / "cfg.json", cfg | {"d_sae": cfg["d_sae"] + num})
    return load_dictionary(folder)


def reader_of(
    lm: LanguageModel, traces: list[Trace], dictionary: Dictionary, seed: int, token_budget: int
) -> Reader:
    """The reader with the appended latents on its shortlist, as `rank` attacks it."""
    rows = response_rows(traces)
    wordings = draw_wordings(traces, [MOVE], seed)
    matched = draw_matched_windows(traces, rows, [MOVE], wordings, seed)
    resid = residuals_in_memory(
        lm, [trace.token_ids for trace in traces], rows.first_position, [0], 1 << 14
    )[0]
    stream = MaximaStream(matched.intervals, dictionary.d_sae)
    stream.add(active(dictionary, 0, resid))
    maxima = stream.result()
    return Reader(
        name="rl",
        behaviours=[MOVE],
        traces=hold_out(traces, wordings),
        rows=rows,
        matched=matched,
        maxima=lambda layer: maxima,
        model=lambda: ReadingModel(
            lm,
            {0: dictionary},
            lambda chosen: {0: resid[torch.from_numpy(rows.indices(chosen))]},
            token_budget=token_budget,
        ),
        targets=[
            Target(SPAN_DETECTORS, MOVE, "rl", "rl", 0, dictionary.d_sae - len(KINDS) + number)
            for number in range(len(KINDS))
        ],
    )


def names(config: Config, trained: Path, folder: Path, seed: int) -> dict[str, str]:
    """The label of each kind of latent in one draw of text, words and noise."""
    rng = np.random.default_rng(seed)
    lm, roles = reader(salt=seed), Roles.drawn(rng)
    traces = write_traces(lm, roles, rng)
    dictionary = append_latents(trained, folder, lm, roles, rng)
    config.rank.seed, config.rank.injection_texts = seed, 30
    attacked = reader_of(lm, traces, dictionary, seed, config.cache.token_budget)
    thresholds = Thresholds(config.rank.attacks, config.rank.bootstrap, seed)
    attacks = [*attack_span_detectors(attacked, thresholds)]
    attacks += attack_with_paraphrase(attacked, paraphraser(roles), thresholds)
    attacks += attack_with_words(attacked, config.rank, thresholds)[0]
    found = add_labels(pd.DataFrame([asdict(attack) for attack in attacks]))
    labels = found.drop_duplicates("latent").sort_values("latent").label
    return dict(zip(KINDS, labels, strict=True))
