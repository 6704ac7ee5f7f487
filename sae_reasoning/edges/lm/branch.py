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
from sae_reasoning.edges.lm.load import LanguageModel, continuation_ids, encode_prompt
from sae_reasoning.edges.lm.read import pack
from sae_reasoning.edges.workers import shared_out


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
    found: list[list[float]] = [[] for _ in texts]
    batches = list(pack([text.num_tokens for text in texts], token_budget))

    def read(rows: Sequence[int]) -> list[list[float]]:
        with torch.inference_mode():
            return list(_read(lm, [texts[row] for row in rows]))

    for rows, read_of in zip(batches, shared_out(read, batches, lm.device), strict=True):
        for row, values in zip(rows, read_of, strict=True):
            found[row] = values
    return found


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
    said = {text: continuation_ids(lm, text) for own in continuations for text in own}
    by_sequence: list[list[int]] = [[] for _ in sequences]
    for index, (sequence, _) in enumerate(places):
        by_sequence[sequence].append(index)
    texts = [
        BranchingText(
            token_ids,
            tuple(Branch(places[i][1], said[text]) for i in own for text in continuations[i]),
        )
        for token_ids, own in zip(sequences, by_sequence, strict=True)
    ]
    found: list[list[float]] = [[] for _ in places]
    for own, flat in zip(by_sequence, branch_log_probs(lm, texts, token_budget), strict=True):
        rest = iter(flat)
        for index in own:
            found[index] = [next(rest) for _ in continuations[index]]
    return found


def opening_probabilities(
    lm: LanguageModel, prompts: Sequence[str], opening: str, token_budget: int
) -> list[float]:
    """P(the response begins with `opening`), of each prompt."""
    sequences = [tuple(encode_prompt(lm.tokenizer, prompt)) for prompt in prompts]
    ends = [(index, len(ids) - 1) for index, ids in enumerate(sequences)]
    values = log_probs_at(lm, sequences, ends, [[opening]] * len(ends), token_budget)
    return [math.exp(value) for (value,) in values]


@dataclass(frozen=True)
class _Layout:
    """One text with its branches in a row.

    Attributes:
        token_ids: The text, then each branch without its last token.
        positions: Of each token.
        may_see: Which tokens each token attends to.
        predicted: Place in the row, token it predicts and branch, of each branch token.
    """

    token_ids: list[int]
    positions: list[int]
    may_see: Tensor
    predicted: list[tuple[int, int, int]]


def _lay_out(text: BranchingText) -> _Layout:
    length = len(text.token_ids)
    token_ids, positions = list(text.token_ids), list(range(length))
    may_see = torch.zeros(text.num_tokens, text.num_tokens, dtype=torch.bool)
    may_see[:length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
    predicted = []
    for number, branch in enumerate(text.branches):
        start = len(token_ids)
        for offset, token in enumerate(branch.token_ids):
            place = branch.after if offset == 0 else start + offset - 1
            predicted.append((place, token, number))
        inner = branch.token_ids[:-1]
        end = start + len(inner)
        may_see[start:end, : branch.after + 1] = True
        may_see[start:end, start:end] = torch.ones(len(inner), len(inner), dtype=torch.bool).tril()
        token_ids.extend(inner)
        positions.extend(range(branch.after + 1, branch.after + 1 + len(inner)))
    return _Layout(token_ids, positions, may_see, predicted)


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
    may_see = torch.eye(width, dtype=torch.bool).repeat(len(texts), 1, 1)
    predicted = []
    first = 0
    for row, (text, layout) in enumerate(zip(texts, layouts, strict=True)):
        size = len(layout.token_ids)
        token_ids[row, :size] = torch.tensor(layout.token_ids)
        positions[row, :size] = torch.tensor(layout.positions)
        may_see[row, :size, :size] = layout.may_see
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
        dtype = lm.model.dtype
        mask = torch.zeros(may_see.shape, dtype=dtype).masked_fill(~may_see, torch.finfo(dtype).min)
        inputs["attention_mask"] = mask[:, None].to(lm.device)
        inputs["position_ids"] = positions.to(lm.device)
    columns = torch.tensor(predicted, dtype=torch.long, device=lm.device).reshape(-1, 4).unbind(1)
    return BranchingBatch(inputs, *columns)


def _read(lm: LanguageModel, texts: Sequence[BranchingText]) -> Iterator[list[float]]:
    batch = lay_out(lm, texts)
    logits = lm.model(**batch.inputs, use_cache=False).logits
    log_probs = logits[batch.rows, batch.places].float().log_softmax(-1)
    chosen = log_probs[range(len(batch.tokens)), batch.tokens]
    sums = iter(batch.sums(chosen, sum(len(text.branches) for text in texts)).tolist())
    for text in texts:
        yield [next(sums) for _ in text.branches]
