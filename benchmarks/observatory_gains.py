"""The gains of continual models over their bases from pairs alone, as a function of the tokens that were added.

What the planner predicted with before the mixed model, kept to be compared with it.

Predicted by the simplest of three forms that predicts families it has not seen best: the mean gain; with log10 of the
added tokens; with the base's own level too (a base that is good already gains less). Intervals are for one new model.
"""

import dataclasses

import numpy as np

from kanana_jax.observatory import jackknife
from kanana_jax.observatory.pairs import MIN_PAIRS, Pairs
from kanana_jax.observatory.unseen import Unseen, unseen

Array = np.ndarray
FORMS = ("mean", "tokens", "tokens and level")


@dataclasses.dataclass(frozen=True)
class GainModel:
    """gain = weights · (1, log10 tokens/1e9, base's level), as many of these as `form` has.

    Attributes:
      design, families: float64 [n, k] and str [n], of the pairs that it was fitted to.
      lofo_rmse: its error on families left out; None with a single one.
      se, sd: of the residuals, and of the gains.
      token_range, level_range: of these pairs.
    """

    form: str
    n: int
    design: Array
    families: Array
    weights: Array
    unseen: Unseen
    se: float
    lofo_rmse: float | None
    sd: float
    token_range: tuple[float, float]
    level_range: tuple[float, float]

    def predict(self, tokens_b: float, level: float) -> tuple[float, float, float]:
        """Gain and its 95% prediction interval for a new model of a new family."""
        middle, low, high = self.curve(np.array([tokens_b]), level)
        return float(middle[0]), float(low[0]), float(high[0])

    def curve(self, tokens_b: Array, level: float) -> tuple[Array, Array, Array]:
        """`predict` for many numbers of tokens, float64 [n] each."""
        rows = self.rows(tokens_b, level)
        middle, half = rows @ self.weights, self.unseen.half(rows)
        return middle, middle - half, middle + half

    def rows(self, tokens_b: Array, level: float) -> Array:
        """The design's rows of such plans, float64 [n, k]."""
        rows = np.column_stack([np.ones(len(tokens_b)), np.log10(tokens_b), np.full(len(tokens_b), level)])
        return rows[:, : len(self.weights)]


def gain_models(pairs: Pairs, measure: str) -> dict[str, GainModel]:
    """form → the model, of those for which there are pairs enough."""
    gains, levels = pairs.gains[measure].to_numpy(float), pairs.before[measure].to_numpy(float)
    found = {}
    known = np.isfinite(gains) & (pairs.tokens_b > 0)
    y, level, tokens = gains[known], levels[known], pairs.tokens_b[known]
    families = pairs.families[known]
    groups = jackknife.rows_of(families)
    for columns, form in enumerate(FORMS, 1):
        design = np.column_stack([np.ones(len(y)), np.log10(tokens), level])[:, :columns]
        if len(y) < max(MIN_PAIRS, columns + 3) or np.linalg.matrix_rank(design) < columns:
            continue
        weights = np.linalg.lstsq(design, y, rcond=None)[0]
        se = float(np.sqrt(np.sum((y - design @ weights) ** 2) / (len(y) - columns)))
        lofo = jackknife.left_out_error(design, y, groups)
        found[form] = GainModel(
            form=form,
            n=len(y),
            design=design,
            families=families,
            weights=weights,
            unseen=unseen(design, y, groups),
            se=se,
            lofo_rmse=lofo,
            sd=float(np.std(y, ddof=1)),
            token_range=(float(tokens.min()), float(tokens.max())),
            level_range=(float(level.min()), float(level.max())),
        )
    return found


def best(models: dict[str, GainModel]) -> GainModel | None:
    """The smallest error on families left out (the smallest residual where there is one family)."""
    return min(models.values(), key=lambda m: m.lofo_rmse if m.lofo_rmse is not None else m.se, default=None)
