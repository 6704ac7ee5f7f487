"""ReasonScore (Galichin et al., arXiv 2503.18878): latents that live around cue words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_LEFT, _RIGHT = 1, 2
_ENTROPY_POWER = 0.7


@dataclass(frozen=True)
class CueWindows:
    """Rows around cue words, sorted by row; a row near two words stands twice.

    Attributes:
        row: Row near a cue word.
        word: Number of the word.
        word_behaviour: Behaviour of each word.
    """

    row: Int[np.ndarray, " pair"]
    word: Int[np.ndarray, " pair"]
    word_behaviour: Int[np.ndarray, " word"]

    def bits(self, num_rows: int) -> Int[np.ndarray, " row"]:
        """Behaviours that each row is near a cue of, bit b for behaviour b."""
        bits = np.zeros(num_rows, np.int64)
        of_pair = self.word_behaviour[self.word]
        for behaviour in np.unique(of_pair).tolist():
            bits[self.row[of_pair == behaviour]] |= 1 << behaviour
        return bits


def cue_windows(
    token_id: Int[np.ndarray, " row"],
    trace_of_row: Int[np.ndarray, " row"],
    cue_ids: Mapping[str, Sequence[int]],
) -> CueWindows:
    """Rows within 1 left and 2 right of a cue word, in the same trace.

    Args:
        token_id: Token of each row.
        trace_of_row: Trace of each row; negative outside responses, where no cue counts.
        cue_ids: Cue token ids of each behaviour, in the order of behaviours.
    """
    rows, words = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    behaviours: list[int] = []
    for behaviour, ids in enumerate(cue_ids.values()):
        for cue in ids:
            here = np.flatnonzero((token_id == cue) & (trace_of_row >= 0))
            for offset in range(-_LEFT, _RIGHT + 1):
                near = here + offset
                inside = (near >= 0) & (near < len(token_id))
                near, centre = near[inside], here[inside]
                near = near[trace_of_row[near] == trace_of_row[centre]]
                rows.append(near)
                words.append(np.full(len(near), len(behaviours)))
            behaviours.append(behaviour)
    row, word = np.concatenate(rows), np.concatenate(words)
    # A word repeated within its own window counts a row once.
    pairs = np.unique(row * max(len(behaviours), 1) + word)
    row, word = np.divmod(pairs, max(len(behaviours), 1))
    return CueWindows(row, word, np.array(behaviours, np.int64))


def reason_score(
    near: Float[np.ndarray, " latent"],
    elsewhere: Float[np.ndarray, " latent"],
    by_word: Float[np.ndarray, "word latent"],
) -> Float[np.ndarray, " latent"]:
    """`mu+_i / sum_j mu+_j * H_i^0.7 - mu-_i / sum_j mu-_j`.

    Args:
        near: Mean activation over rows near any cue word, mu+.
        elsewhere: Mean activation over all other rows, mu-.
        by_word: Mean activation near each cue word; H is the entropy over words of its share,
            divided by the log of their number, and 0 where there are fewer than two words.
    """
    num_words = len(by_word)
    entropy = np.zeros(len(near))
    if num_words > 1:
        total = by_word.sum(0)
        share = by_word / np.where(total > 0, total, 1)
        logs = np.log(np.where(share > 0, share, 1))
        entropy = -(share * logs).sum(0) / np.log(num_words)
    return _share(near) * np.maximum(entropy, 0) ** _ENTROPY_POWER - _share(elsewhere)


def _share(means: Float[np.ndarray, " latent"]) -> Float[np.ndarray, " latent"]:
    return means / (means.sum() or 1.0)
