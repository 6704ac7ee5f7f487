"""Latent scaling (2504.02922): is a crosscoder's latent really one model's own?

A crosscoder may leave a latent without a decoder row in one model although that model holds the
concept: its part was pruned away and stays in that model's error (*complete shrinkage*), or other
latents carry it there (*latent decoupling*). So, per latent j, with d_j its decoder row in the
model where it is longer (the *stronger*; the paper looks at latents of the chat model, so at the
chat model's row):

1. y = each model's error with the latent's own contribution left in, `x - sum_{i != j} f_i d_i`,
   and each model's reconstruction, `sum_i f_i d_i`, without the decoder's bias: a constant has
   nothing to do with any latent.
2. y is regressed on the latent's contribution f_j d_j over all tokens, without an intercept:
   `beta = sum_t f_j <y, d_j> / (sum_t f_j^2 |d_j|^2)`.
3. `nu = beta_weaker / beta_stronger`, for the error and for the reconstruction: 0 where the weaker
   model holds nothing of the latent, 1 where it holds as much. For latents that are longer in RL
   this is the paper's beta_base / beta_RL; for the base's own it is the inverse, as there beta_RL
   is what should be 0. It is undefined where the interval of beta_stronger holds 0.
4. Intervals resample problems; thresholds apply to bounds.

All in units in which both models' residuals have the same mean norm: else a model that is merely
louder would have all latents to itself.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from sae_reasoning.stats import Estimate, bootstrap_of_sums

SHARED, UNCLEAR, UNDEFINED = "shared", "unclear", "undefined"
_SQUARES, _ERROR, _RECONSTRUCTION, _NUM_SUMS = 0, 1, 3, 5
"""Columns of the sums: f^2; f <error, d> and f <reconstruction, d>, two models each."""
_MAX_PENDING = 1 << 20
"""Pairs of latent and problem that are held before equal ones are added up."""


@dataclass(frozen=True)
class ScalingThresholds:
    """What counts as one model's own.

    Attributes:
        norm: Share of both decoder norms from which norms alone call a latent specific.
        error: A latent is specific only with nu of the error below this.
        reconstruction: And with nu of the reconstruction below this.
        problems: Problems in which it must fire.
        resamples: Of problems.
        seed: Of the resamples.
    """

    norm: float
    error: float
    reconstruction: float
    problems: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class LatentScaling:
    """One latent; the columns of `scaling.parquet`.

    Attributes:
        latent: Its number.
        num_problems: Problems in which it fires.
        num_tokens: Tokens on which it fires.
        norm_share: Norm of its decoder row in the second model over both norms.
        decoder_cosine: Between its two rows; NaN where one is 0.
        by_norms: Its status by norms alone: `base-specific`, `rl-specific` or `shared`.
        stronger: Model in which its row is longer.
        beta_error_base: Slope of the base's error on it.
        beta_error_rl: The same of the second model's.
        beta_error_low: Lower bound of the stronger's.
        beta_error_high: Upper bound of the stronger's.
        beta_reconstruction_base: Slope of the base's reconstruction on it.
        beta_reconstruction_rl: The same of the second model's.
        beta_reconstruction_low: Lower bound of the stronger's.
        beta_reconstruction_high: Upper bound of the stronger's.
        nu_error: Weaker over stronger slope of the error; NaN where undefined, as the bounds.
        nu_error_low: Lower bound.
        nu_error_high: Upper bound.
        nu_reconstruction: Weaker over stronger slope of the reconstruction.
        nu_reconstruction_low: Lower bound.
        nu_reconstruction_high: Upper bound.
        complete_shrinkage: Specific by norms, but the weaker model's error significantly holds it.
        latent_decoupling: Specific by norms, but the weaker's other latents significantly write it.
        status: `base-specific` or `rl-specific` where norms say so and both nu are significantly
            below their thresholds; `shared` where norms say so, or one nu is significantly above;
            `unclear` where a threshold lies within an interval; `undefined`.
    """

    latent: int
    num_problems: int
    num_tokens: int
    norm_share: float
    decoder_cosine: float
    by_norms: str
    stronger: str
    beta_error_base: float
    beta_error_rl: float
    beta_error_low: float
    beta_error_high: float
    beta_reconstruction_base: float
    beta_reconstruction_rl: float
    beta_reconstruction_low: float
    beta_reconstruction_high: float
    nu_error: float
    nu_error_low: float
    nu_error_high: float
    nu_reconstruction: float
    nu_reconstruction_low: float
    nu_reconstruction_high: float
    complete_shrinkage: bool
    latent_decoupling: bool
    status: str


class ScalingSums:
    """Sums of both regressions per latent and problem, streamed over tokens.

    Memory grows with the pairs of latent and problem that occur, not with all there could be.

    Args:
        decoders: Rows of each model, in units in which both models' residuals are alike.
        readers: Names of the two models; the base first.
        num_problems: Problems are numbered below this.
    """

    def __init__(
        self,
        decoders: Float[Tensor, "reader d_sae d_model"],
        readers: Sequence[str],
        num_problems: int,
    ) -> None:
        self.norms = decoders.norm(dim=2)
        self.readers, self.num_problems = tuple(readers), num_problems
        self.stronger = self.norms.argmax(0)
        latents = torch.arange(decoders.shape[1], device=decoders.device)
        self._directions = decoders[self.stronger, latents]
        self._overlaps = (decoders * self._directions).sum(2)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_pending = 0

    @property
    def d_sae(self) -> int:
        """Latents."""
        return len(self._directions)

    @torch.no_grad()
    def add(
        self,
        problem: Int[np.ndarray, " row"],
        values: Float[Tensor, "row k"],
        latents: Int[Tensor, "row k"],
        errors: Float[Tensor, "reader row d_model"],
        reconstructions: Float[Tensor, "reader row d_model"],
    ) -> None:
        """Count some tokens.

        Args:
            problem: Of each token.
            values: Active latents of each token; padding has value 0.
            latents: Which they are.
            errors: What each model's reconstruction, its bias included, leaves.
            reconstructions: Of each model, without its bias.
        """
        active = values > 0
        f, which = values[active].double(), latents[active]
        sums = torch.empty(len(f), _NUM_SUMS + 1, dtype=torch.float64, device=f.device)
        sums[:, _SQUARES] = f * f
        for first, targets in ((_ERROR, errors), (_RECONSTRUCTION, reconstructions)):
            for reader, target in enumerate(targets):
                along = (target @ self._directions.T).gather(1, latents)[active]
                sums[:, first + reader] = f * along
        for reader, overlap in enumerate(self._overlaps):
            sums[:, _ERROR + reader] += f * f * overlap[which]  # Its own contribution, left in.
        sums[:, _NUM_SUMS] = 1
        place = torch.from_numpy(np.asarray(problem, np.int64)).to(which.device)
        keys = which * self.num_problems + place[:, None].expand_as(latents)[active]
        self._pending.append(_added_up(keys.cpu().numpy(), sums.cpu().numpy()))
        self._num_pending += len(self._pending[-1][0])
        if self._num_pending > _MAX_PENDING:
            self._compact()

    def result(self, thresholds: ScalingThresholds) -> pd.DataFrame:
        """A row of `LatentScaling` for every latent."""
        keys, sums = self._compact()
        first = np.searchsorted(keys, np.arange(self.d_sae + 1) * self.num_problems)
        rows = []
        for latent in range(self.d_sae):
            here = slice(first[latent], first[latent + 1])
            own = np.zeros((self.num_problems, _NUM_SUMS + 1))
            own[keys[here] - latent * self.num_problems] = sums[here]
            rows.append(asdict(self._scale(latent, own, thresholds)))
        return pd.DataFrame(rows)

    def _compact(self) -> tuple[Int64[np.ndarray, " pair"], Float[np.ndarray, "pair sum"]]:
        keys = [pair[0] for pair in self._pending] or [np.empty(0, np.int64)]
        sums = [pair[1] for pair in self._pending] or [np.empty((0, _NUM_SUMS + 1))]
        self._pending = [_added_up(np.concatenate(keys), np.concatenate(sums))]
        self._num_pending = 0  # Of new ones; what is added up already only grows with what occurs.
        return self._pending[0]

    def _scale(
        self, latent: int, sums: Float[np.ndarray, "problem sum"], thresholds: ScalingThresholds
    ) -> LatentScaling:
        strong = int(self.stronger[latent])
        norms = self.norms[:, latent].double().cpu().numpy()
        square = float(norms[strong] ** 2)
        error = _regress(sums, _ERROR, strong, square, thresholds)
        reconstruction = _regress(sums, _RECONSTRUCTION, strong, square, thresholds)
        share = float(norms[1] / norms.sum()) if norms.sum() else float("nan")
        by_norms = SHARED
        if not 1 - thresholds.norm < share < thresholds.norm and norms.sum():
            by_norms = f"{self.readers[strong]}-specific"
        num_problems = int((sums[:, _SQUARES] > 0).sum())
        is_suspect = by_norms != SHARED and num_problems >= thresholds.problems
        overlap = float(self._overlaps[1 - strong, latent])
        return LatentScaling(
            latent=latent,
            num_problems=num_problems,
            num_tokens=int(sums[:, _NUM_SUMS].sum()),
            norm_share=share,
            decoder_cosine=overlap / float(norms.prod()) if norms.all() else float("nan"),
            by_norms=by_norms,
            stronger=self.readers[strong],
            beta_error_base=error.slopes[0],
            beta_error_rl=error.slopes[1],
            beta_error_low=error.stronger.low,
            beta_error_high=error.stronger.high,
            beta_reconstruction_base=reconstruction.slopes[0],
            beta_reconstruction_rl=reconstruction.slopes[1],
            beta_reconstruction_low=reconstruction.stronger.low,
            beta_reconstruction_high=reconstruction.stronger.high,
            nu_error=error.nu.value,
            nu_error_low=error.nu.low,
            nu_error_high=error.nu.high,
            nu_reconstruction=reconstruction.nu.value,
            nu_reconstruction_low=reconstruction.nu.low,
            nu_reconstruction_high=reconstruction.nu.high,
            complete_shrinkage=is_suspect and error.nu.low > thresholds.error,
            latent_decoupling=is_suspect and reconstruction.nu.low > thresholds.reconstruction,
            status=_status(by_norms, num_problems, error.nu, reconstruction.nu, thresholds),
        )


class _Regression(NamedTuple):
    """Slopes of both models on a latent, the stronger's with bounds, and their ratio."""

    slopes: tuple[float, float]
    stronger: Estimate
    nu: Estimate


def _regress(
    sums: Float[np.ndarray, "problem sum"],
    first: int,
    strong: int,
    square: float,
    thresholds: ScalingThresholds,
) -> _Regression:
    """Slopes and nu of the target whose sums begin at column `first`."""
    squares = sums[:, _SQUARES].sum() * square
    nan = float("nan")
    unknown = Estimate(nan, nan, nan, len(sums))
    if not squares > 0:
        return _Regression((nan, nan), unknown, unknown)
    slopes = (sums[:, first].sum() / squares, sums[:, first + 1].sum() / squares)
    slope = _ratio(sums, first + strong, _SQUARES, square, thresholds)
    if slope.low <= 0 <= slope.high:
        return _Regression(slopes, slope, unknown)
    return _Regression(
        slopes, slope, _ratio(sums, first + 1 - strong, first + strong, 1.0, thresholds)
    )


def _ratio(
    sums: Float[np.ndarray, "problem sum"],
    above: int,
    below: int,
    unit: float,
    thresholds: ScalingThresholds,
) -> Estimate:
    """Ratio of two sums over problems, with its interval."""

    def ratio(drawn: Float[np.ndarray, "*sample two"]) -> Float[np.ndarray, "*sample"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(drawn[..., 1] == 0, np.nan, drawn[..., 0] / (drawn[..., 1] * unit))

    return bootstrap_of_sums(sums[:, [above, below]], ratio, thresholds.resamples, thresholds.seed)


def _status(
    by_norms: str,
    num_problems: int,
    error: Estimate,
    reconstruction: Estimate,
    thresholds: ScalingThresholds,
) -> str:
    if num_problems < thresholds.problems or np.isnan([error.low, reconstruction.low]).any():
        return UNDEFINED
    if by_norms == SHARED:
        return SHARED
    if error.low > thresholds.error or reconstruction.low > thresholds.reconstruction:
        return SHARED
    if error.high < thresholds.error and reconstruction.high < thresholds.reconstruction:
        return by_norms
    return UNCLEAR


def scaling_summary(table: pd.DataFrame, readers: Sequence[str]) -> pd.DataFrame:
    """Latents by their status by norms, and by the status that scaling leaves them.

    `shared` says that both readers have it, not that it is the same in both: `opposed` counts those
    of them whose two rows point apart (cosine below 0), and so write what differs between readers.
    """
    kinds = [*(f"{reader}-specific" for reader in readers), SHARED]
    rows = []
    for kind in kinds:
        own = table[table.by_norms == kind]
        counts = own.status.value_counts()
        rows.append(
            {
                "by_norms": kind,
                "latents": len(own),
                "specific": int(counts.get(kind, 0)) if kind != SHARED else 0,
                SHARED: int(counts.get(SHARED, 0)),
                "opposed": int(((own.status == SHARED) & (own.decoder_cosine < 0)).sum()),
                UNCLEAR: int(counts.get(UNCLEAR, 0)),
                UNDEFINED: int(counts.get(UNDEFINED, 0)),
                "shrunk": int(own.complete_shrinkage.sum()),
                "decoupled": int(own.latent_decoupling.sum()),
            }
        )
    return pd.DataFrame(rows)


def _added_up(
    keys: Int64[np.ndarray, " item"], sums: Float[np.ndarray, "item sum"]
) -> tuple[Int64[np.ndarray, " pair"], Float[np.ndarray, "pair sum"]]:
    """Sums of equal keys, in order of keys."""
    found, place = np.unique(keys, return_inverse=True)
    columns = [np.bincount(place, column, len(found)) for column in sums.T]
    return found, np.stack(columns, axis=1)
