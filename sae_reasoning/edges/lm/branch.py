"""Log-probabilities of continuations at many places of one text, in one forward pass.

Every continuation is appended to its text as a branch: it sees the text up to its place and itself,
nothing else, and its positions go on from there. So what a model would say next at every
opportunity of a trace costs one pass over the trace and its branches.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    continuation_ids,
    encode_prompt,
    encode_response,
)
from sae_reasoning.edges.lm.logits import head_inputs, log_probs_of
from sae_reasoning.edges.lm.read import pack
from sae_reasoning.edges.workers import shared_out

_WIDEST = 1 << 13
"""Tokens of a text with its branches, if it has more of these than fit; half the text, if more."""
_MAX_MASK = 1 << 27
"""Entries of attention's mask in one pass, unless one text alone has more."""


@dataclass(frozen=True)
class Branch:
    """A continuation at one place of a text.

    Attributes:
        after: Index of the text's last token before it.
        token_ids: The continuation; at least one token.
    """

    after: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class BranchingText:
    """A text, BOS included where the tokenizer adds one, with its branches."""

    token_ids: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of one pass: a branch's last token is predicted, never read."""
        return len(self.token_ids) + sum(len(b.token_ids) - 1 for b in self.branches)


@torch.inference_mode()
def branch_log_probs(
    lm: LanguageModel, texts: Sequence[BranchingText], token_budget: int
) -> list[list[float]]:
    """Log P(branch | text up to its place), of each text's branches in order.

    Args:
        lm: Reader.
        texts: Texts with their branches.
        token_budget: Tokens of one pass, padding and branches included.
    """
    whose = [(index, part) for index, text in enumerate(texts) for part in _parts(text)]
    parts = [part for _, part in whose]
    of_part: list[list[float]] = [[] for _ in parts]
    batches = list(pack([part.num_tokens for part in parts], token_budget))

    def read(rows: Sequence[int]) -> list[list[float]]:
        with torch.inference_mode():
            return list(_read(lm, [parts[row] for row in rows]))

    for rows, read_of in zip(batches, shared_out(read, batches, lm.device), strict=True):
        for row, values in zip(rows, read_of, strict=True):
            of_part[row] = values
    found: list[list[float]] = [[] for _ in texts]
    for (index, _), values in zip(whose, of_part, strict=True):
        found[index] += values
    return found


def _parts(text: BranchingText) -> Iterator[BranchingText]:
    """The text with some of its branches at a time: attention's mask grows with their square."""
    room = max(_WIDEST - len(text.token_ids), len(text.token_ids) // 2)
    own: list[Branch] = []
    used = 0
    for branch in text.branches:
        size = len(branch.token_ids) - 1
        if own and used + size > room:
            yield BranchingText(text.token_ids, tuple(own))
            own, used = [], 0
        own.append(branch)
        used += size
    yield BranchingText(text.token_ids, tuple(own))


def log_probs_at(
    lm: LanguageModel,
    sequences: Sequence[tuple[int, ...]],
    places: Sequence[tuple[int, int]],
    continuations: Sequence[Sequence[str]],
    token_budget: int,
) -> list[list[float]]:
    """Log P(continuation | sequence up to a place), of every continuation at every place.

    Args:
        lm: Reader.
        sequences: Texts.
        places: Sequence, and index of the last token before the continuations.
        continuations: Of each place, in words.
        token_budget: Tokens of one pass.
    """
    # What a word's tokens are depends on whether white space stands before it.
    said: dict[tuple[int, str], tuple[int, ...]] = {}
    for (sequence, place), own in zip(places, continuations, strict=True):
        last = sequences[sequence][place]
        for text in own:
            if (last, text) not in said:
                said[last, text] = continuation_ids(lm, text, (last,))
    by_sequence: list[list[int]] = [[] for _ in sequences]
    for index, (sequence, _) in enumerate(places):
        by_sequence[sequence].append(index)
    texts = [
        BranchingText(
            token_ids,
            tuple(
                Branch(place, said[token_ids[place], text])
                for index in numbers
                for place in (places[index][1],)
                for text in continuations[index]
            ),
        )
        for token_ids, numbers in zip(sequences, by_sequence, strict=True)
    ]
    found: list[list[float]] = [[] for _ in places]
    for numbers, flat in zip(by_sequence, branch_log_probs(lm, texts, token_budget), strict=True):
        rest = iter(flat)
        for index in numbers:
            found[index] = [next(rest) for _ in continuations[index]]
    return found


def opening_probabilities(
    lm: LanguageModel, prompts: Sequence[str], opening: str, token_budget: int
) -> list[float]:
    """P(the response begins with `opening`), of each prompt."""
    sequences = [tuple(encode_prompt(lm.tokenizer, prompt)) for prompt in prompts]
    begun = tuple(encode_response(lm.tokenizer, opening)[0])
    texts = [BranchingText(ids, (Branch(len(ids) - 1, begun),)) for ids in sequences]
    return [math.exp(value) for (value,) in branch_log_probs(lm, texts, token_budget)]


@dataclass(frozen=True)
class _Layout:
    """One text with its branches in a row.

    Attributes:
        token_ids: The text, then each branch without its last token.
        positions: Of each token.
        branch: Number of each token's branch; -1 for the text itself.
        after: What each token of a branch sees of the text, up to there; -1 for the text's own.
        predicted: Place in the row, token it predicts and branch, of each branch token.
    """

    token_ids: list[int]
    positions: list[int]
    branch: list[int]
    after: list[int]
    predicted: list[tuple[int, int, int]]


def _lay_out(text: BranchingText) -> _Layout:
    length = len(text.token_ids)
    token_ids, positions = list(text.token_ids), list(range(length))
    branches, afters = [-1] * length, [-1] * length
    predicted = []
    for number, branch in enumerate(text.branches):
        start = len(token_ids)
        for offset, token in enumerate(branch.token_ids):
            place = branch.after if offset == 0 else start + offset - 1
            predicted.append((place, token, number))
        inner = branch.token_ids[:-1]
        token_ids.extend(inner)
        positions.extend(range(branch.after + 1, branch.after + 1 + len(inner)))
        branches.extend([number] * len(inner))
        afters.extend([branch.after] * len(inner))
    return _Layout(token_ids, positions, branches, afters, predicted)


@dataclass(frozen=True)
class BranchingBatch:
    """Texts with their branches, laid out in rows.

    Attributes:
        inputs: What the model is called with.
        rows: Of each branch token, the row of its text.
        places: Where in the row it is predicted.
        tokens: The token.
        branches: Number of its branch, counted over the whole batch.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    places: Tensor
    tokens: Tensor
    branches: Tensor

    def sums(self, log_probs: Tensor, num_branches: int) -> Tensor:
        """Log-probability of each branch from that of each of its tokens."""
        return log_probs.new_zeros(num_branches).index_add(0, self.branches, log_probs)


def lay_out(lm: LanguageModel, texts: Sequence[BranchingText]) -> BranchingBatch:
    """One batch; without a mask where no branch is longer than a token, since nothing is added.

    Raises:
        ConfigError: A text is longer than the reach of the model's attention.
    """
    layouts = [_lay_out(text) for text in texts]
    width = max(len(layout.token_ids) for layout in layouts)
    token_ids = torch.full((len(texts), width), lm.tokenizer.pad_token_id or 0)
    positions = torch.zeros(len(texts), width, dtype=torch.long)
    predicted = []
    first = 0
    for row, (text, layout) in enumerate(zip(texts, layouts, strict=True)):
        size = len(layout.token_ids)
        token_ids[row, :size] = torch.tensor(layout.token_ids)
        positions[row, :size] = torch.tensor(layout.positions)
        predicted += [(row, p, t, first + number) for p, t, number in layout.predicted]
        first += len(text.branches)
    inputs = {"input_ids": token_ids.to(lm.device)}
    if any(len(branch.token_ids) > 1 for text in texts for branch in text.branches):
        window = getattr(lm.model.config.get_text_config(), "sliding_window", None)
        if window and width > window:
            raise ConfigError(
                f"{lm.facts.name} attends to {window} tokens, fewer than a text of {width} with "
                "its branches, and branches are read with full attention; shorten the texts"
            )
        inputs["attention_mask"] = _mask(lm, layouts, width)
        inputs["position_ids"] = positions.to(lm.device)
    columns = torch.tensor(predicted, dtype=torch.long, device=lm.device).reshape(-1, 4).unbind(1)
    return BranchingBatch(inputs, *columns)


def _mask(lm: LanguageModel, layouts: Sequence[_Layout], width: int) -> Tensor:
    """What is added to attention [row, 1, token, token]: nothing where a token may be seen."""
    dtype = lm.model.dtype
    mask = torch.empty(len(layouts), 1, width, width, dtype=dtype, device=lm.device)
    places = torch.arange(width, device=lm.device)
    for row, layout in enumerate(layouts):
        padding = width - len(layout.token_ids)  # Sees itself, or softmax would be of nothing.
        branch = torch.tensor(layout.branch + [-2] * padding, device=lm.device)
        after = torch.tensor(layout.after + [-1] * padding, device=lm.device)
        may_see = (branch[:, None] == branch).tril_()
        may_see |= places <= after[:, None]
        mask[row, 0] = torch.finfo(dtype).min
        mask[row, 0].masked_fill_(may_see, 0.0)
    return mask


def _read(lm: LanguageModel, texts: Sequence[BranchingText]) -> Iterator[list[float]]:
    widest = max(text.num_tokens for text in texts)
    at_once = max(_MAX_MASK // widest**2, 1)
    for start in range(0, len(texts), at_once):
        here = texts[start : start + at_once]
        batch = lay_out(lm, here)
        read = head_inputs(lm, batch.inputs, batch.rows, batch.places)
        chosen = log_probs_of(lm, read, batch.tokens)
        sums = iter(batch.sums(chosen, sum(len(text.branches) for text in here)).tolist())
        for text in here:
            yield [next(sums) for _ in text.branches]
