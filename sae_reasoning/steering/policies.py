"""Who decides, at every token that a base model writes, whether it's steered, and how.

*When*: `never`; `always`; `random`, at a share of tokens; `differs`, where the base's and the RL
model's likeliest next tokens differ, by more than a threshold; `random-differs`, at a share of the
tokens at which they differ; `oracle`, where they do and the RL
model's latents say that a behaviour starts, and which; `gate`, where the base's own latents
foresee that, without the RL model. *How*: `vector` adds the behaviour's steering vector to the
base's residual; `scale` makes the residual as long as `vector` would, and leaves its direction;
`swap` lets the model that reads along write the token; `write` puts the behaviour's opening words
there, one a token.

Classes of behaviours count from 1; 0 is none. Rows of one batch may follow different policies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.steering.readout import ClassifyOnsets, Foresee
from sae_reasoning.steering.vectors import Steer

NEVER, ALWAYS, RANDOM, DIFFERS, RANDOM_DIFFERS, ORACLE, GATE = (
    "never",
    "always",
    "random",
    "differs",
    "random-differs",
    "oracle",
    "gate",
)
WHENS = (NEVER, ALWAYS, RANDOM, DIFFERS, RANDOM_DIFFERS, ORACLE, GATE)
VECTOR, SCALE, SWAP, WRITE = "vector", "scale", "swap", "write"
HOWS = (VECTOR, SCALE, SWAP, WRITE)


@runtime_checkable
class View(Protocol):
    """What one model makes of the present position, unedited."""

    @property
    def logits(self) -> Float[Tensor, "batch vocab"]: ...  # noqa: D102
    @property
    def residuals(self) -> dict[int, Float[Tensor, "batch d_model"]]: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Policy:
    """When one row is steered, and how.

    Attributes:
        when: One of `WHENS`.
        how: One of `HOWS`.
        threshold: Of `differs`, `oracle` and `gate`, the divergence in nats, measured or foreseen,
            above which they steer.
        shares: Of `random`, the share of tokens at which each behaviour is steered to; of
            `random-differs`, of the tokens at which the models differ.
        vectors: Of `vector` and `scale`, what is added for each behaviour; where it's None nothing
            is done.
        words: Of `write`, the tokens of each behaviour's opening; empty ones do nothing.
    """

    when: str
    how: str = VECTOR
    threshold: float = 0.0
    shares: Sequence[float] = ()
    vectors: Sequence[Steer | None] = ()
    words: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class Decision:
    """What is done at the present position of each row.

    Attributes:
        layer: Decoder block after which the base's residual is steered; -1 for none.
        change: What is added there.
        is_scaled: Whether only the length that this gives the residual counts, not its direction.
        is_swapped: Whether the logits of the model that reads along count instead.
        token: The token that is written next; -1 where it's sampled.
    """

    layer: Int[Tensor, " batch"]
    change: Float[Tensor, "batch d_model"]
    is_scaled: Bool[Tensor, " batch"]
    is_swapped: Bool[Tensor, " batch"]
    token: Int[Tensor, " batch"]


def disagreement(
    base: Float[Tensor, "*batch vocab"], rl: Float[Tensor, "*batch vocab"]
) -> tuple[Bool[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Whether the likeliest next tokens differ, and KL(RL ‖ base) in nats."""
    log_rl = rl.log_softmax(-1)
    divergence = (log_rl.exp() * (log_rl - base.log_softmax(-1))).sum(-1)
    return base.argmax(-1) != rl.argmax(-1), divergence


def threshold_for(scores: Float[Tensor, " candidate"], num_positions: int, budget: float) -> float:
    """Score above which the candidates are at most a share `budget` of all positions.

    Below all of them where there are too few; ties may make it fewer.
    """
    most = int(budget * num_positions)
    if len(scores) <= most:
        return -torch.inf
    return float(scores.sort(descending=True).values[most])


class Tally(NamedTuple):
    """What policies did to each row.

    Attributes:
        positions: Where it was steered: 0 is the position that predicts the first generated token,
            1 that token's own, and so on.
        decided: At how many positions it was decided to steer to each behaviour.
    """

    positions: tuple[tuple[int, ...], ...]
    decided: Int[Tensor, "row behaviour"]


class RowPolicies:
    """Policies on the rows of one generation; callable as `lockstep` takes it.

    Attributes:
        num_behaviours: Classes of behaviours, none included.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        policy_of_row: Int[Tensor, " row"],
        random_keys: Int[Tensor, "row 3"],
        *,
        num_behaviours: int,
        d_model: int,
        by_rl: ClassifyOnsets,
        by_base: Foresee,
    ) -> None:
        """Lay the policies out in tables.

        Args:
            policies: What a row may follow.
            policy_of_row: Which of them each row does.
            random_keys: Of each row's noise, for what is drawn at random.
            num_behaviours: Classes of behaviours, none included.
            d_model: Width of the residual.
            by_rl: What the RL model's latents say.
            by_base: What the base's foresee.
        """
        self.num_behaviours = num_behaviours
        self._policies, self._of_row = policies, policy_of_row
        self._by_rl, self._by_base = by_rl, by_base
        self._when = torch.tensor([WHENS.index(policy.when) for policy in policies])
        self._how = torch.tensor([HOWS.index(policy.how) for policy in policies])
        self._threshold = torch.tensor([policy.threshold for policy in policies])
        shape = (len(policies), num_behaviours)
        self._layer = torch.full(shape, -1)
        self._change = torch.zeros(*shape, d_model)
        longest = max((len(w) for p in policies for w in p.words), default=0)
        self._words = torch.full((*shape, longest + 1), -1)
        self._log_shares = torch.full(shape, -torch.inf)
        self._log_shares[:, 0] = 0.0
        for number, policy in enumerate(policies):
            for behaviour, vector in enumerate(policy.vectors, 1):
                if vector is not None:
                    self._layer[number, behaviour] = vector.layer
                    self._change[number, behaviour] = vector.change
            for behaviour, words in enumerate(policy.words, 1):
                self._words[number, behaviour, : len(words)] = torch.tensor(
                    words, dtype=torch.int64
                )
            if policy.shares:
                shares = torch.tensor([1 - sum(policy.shares), *policy.shares])
                self._log_shares[number] = shares.clamp_min(0).log()
        self._at_random = keyed_sampler(random_keys, 1.0)
        self._writing = torch.zeros(len(policy_of_row), 2, dtype=torch.int64)
        self._log: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, rows: Int[Tensor, " batch"], step: int, base: View, rl: View) -> Decision:
        """Decide for each row; both models' logits and residuals are of the present position."""
        device = base.logits.device
        at = rows.cpu()
        which = self._of_row[at]
        behaviour = self._behaviours(at, which, step, base, rl)
        how = self._how[which]
        behaviour = torch.where(
            self._writing[at, 0] > 0, 0, behaviour
        )  # An opening is finished first.
        token, is_writing = self._write(
            at, which, torch.where(how == HOWS.index(WRITE), behaviour, 0)
        )
        is_swapped = (how == HOWS.index(SWAP)) & (behaviour > 0)
        is_scaled = how == HOWS.index(SCALE)
        is_moved = is_scaled | (how == HOWS.index(VECTOR))
        layer = torch.where(is_moved, self._layer[which, behaviour], -1)
        steered = is_swapped | (layer >= 0) | is_writing
        self._log.append((at, torch.where(steered, behaviour, 0), steered))
        return Decision(
            layer.to(device),
            self._change[which, behaviour].to(base.logits),
            is_scaled.to(device),
            is_swapped.to(device),
            token.to(device),
        )

    def tally(self, num_positions: Int[Tensor, " row"]) -> "Tally":
        """Where each row was steered, and to what.

        Args:
            num_positions: Positions of each row that count, from its first: a batch goes on with
                rows that have ended for a while.
        """
        seen = torch.zeros(len(num_positions), dtype=torch.int64)
        positions: list[list[int]] = [[] for _ in num_positions]
        decided = torch.zeros(len(num_positions), self.num_behaviours, dtype=torch.int64)
        for rows, behaviour, is_steered in self._log:
            counts = seen[rows] < num_positions[rows]
            for row, place in torch.stack([rows, seen[rows]], 1)[is_steered & counts].tolist():
                positions[row].append(place)
            decided[rows[counts], behaviour[counts]] += 1
            seen[rows] += 1
        return Tally(tuple(map(tuple, positions)), decided)

    def _behaviours(self, at: Tensor, which: Tensor, step: int, base: View, rl: View) -> Tensor:
        """Which behaviour each row is steered to, 0 for none."""
        when = self._when[which]
        behaviour = torch.zeros(len(at), dtype=torch.int64)
        threshold = self._threshold[which]

        def rows_of(name: str) -> Tensor:
            return when == WHENS.index(name)

        if (own := rows_of(RANDOM) | rows_of(RANDOM_DIFFERS)).any():
            drawn = self._at_random(self._log_shares[which], at, step)
            behaviour = torch.where(own, drawn, behaviour)
        by_difference = rows_of(ORACLE) | rows_of(DIFFERS) | rows_of(RANDOM_DIFFERS)
        asked = rows_of(ALWAYS)
        if by_difference.any():
            differs, by = (x.cpu() for x in disagreement(base.logits, rl.logits))
            behaviour = torch.where(rows_of(RANDOM_DIFFERS) & ~differs, 0, behaviour)
            behaviour = torch.where(rows_of(DIFFERS) & differs & (by > threshold), 1, behaviour)
            asked = asked | (rows_of(ORACLE) & differs & (by > threshold))
        if asked.any():
            said = self._by_rl(_some(rl, asked)).cpu()
            # Where every token is steered there's no none.
            said[rows_of(ALWAYS)[asked], 0] = -torch.inf
            behaviour[asked] = said.argmax(-1)
        if (own := rows_of(GATE)).any():
            foreseen = self._by_base(_some(base, own))
            likely = foreseen.divergence.cpu() > threshold[own]
            behaviour[own] = torch.where(likely, foreseen.behaviours.argmax(-1).cpu(), 0)
        return behaviour

    def _write(self, at: Tensor, which: Tensor, begun: Tensor) -> tuple[Tensor, Tensor]:
        """The token that each row has to write, and whether it does."""
        behaviour, place = self._writing[at].unbind(1)
        is_free = behaviour == 0
        behaviour, place = torch.where(is_free, begun, behaviour), torch.where(is_free, 0, place)
        token = torch.where(behaviour > 0, self._words[which, behaviour, place], -1)
        is_writing = token >= 0
        after = self._words[which, behaviour, (place + 1).clamp_max(self._words.shape[2] - 1)]
        goes_on = is_writing & (after >= 0)
        self._writing[at, 0] = torch.where(goes_on, behaviour, 0)
        self._writing[at, 1] = torch.where(goes_on, place + 1, 0)
        return token, is_writing


def _some(view: View, rows: Tensor) -> dict[int, Tensor]:
    """Residuals of some rows of the batch."""
    chosen = rows.nonzero().flatten().to(view.logits.device)
    return {layer: resid[chosen] for layer, resid in view.residuals.items()}
