"""Best-of-N: how much a policy gains if a scorer chooses among N of its answers, and which scorer chooses best.

N answers per prompt are sampled and scored once. The curve over 1, 2, 4 … N is the expectation over all subsets of each
size, not the result of one random subset (WebGPT, arXiv:2112.09332, appendix I). The judge that reports scores must
differ from the scorer that chooses; otherwise the curve only shows the maximum of N scores.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from kanana_jax.errors import UserError

Prompt = TypeVar("Prompt")
# (prompts, number of answers per prompt) → texts `[P][N]`.
Sample = Callable[[Sequence[Prompt], int], Sequence[Sequence[str]]]
# (prompts, texts) → scores `[P]`, where text i answers prompt i: a reward model, a verifier or a judge.
Score = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a best-of-n curve.

    Attributes:
      n: number of answers to choose from.
      kl: `kl_bound(n)`, in nats.
      score: the judge's mean score of the chosen answers, over prompts.
      error: standard error of that mean; NaN if there is only one prompt.
      ends: the normal 95% interval of the mean, within the judge's lowest and highest score of an answer.
      chosen: mean score of the chosen answers by the scorer that chooses.
    """

    n: int
    kl: float
    score: float
    error: float
    ends: tuple[float, float]
    chosen: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with the 95% interval of the score (None if there is only one prompt)."""
        own = dataclasses.asdict(self)
        low, high = own.pop("ends")
        known = not math.isnan(self.error)
        return own | {"error": self.error if known else None, "score_ci95": [low, high] if known else [None, None]}


def kl_bound(n: int) -> float:
    """KL divergence of best-of-n from the sampling policy, in nats: log n − (n − 1)/n.

    Exact for scores without ties (arXiv:2009.01325, appendix G.3), an upper bound in general (arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n


def scored(prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], score: Score[Prompt]) -> np.ndarray:
    """Scores of all answers, float64 `[P, N]`, from a single call of the scorer.

    Args:
      texts: answers `[P][N]`.

    Raises:
      UserError: the scorer does not return one score per answer, or a score is not finite.
    """
    flat = [(prompt, text) for prompt, own in zip(prompts, texts, strict=True) for text in own]
    found = np.asarray(score([prompt for prompt, _ in flat], [text for _, text in flat]), np.float64)
    if found.shape != (len(flat),):
        raise UserError(f"{len(flat)} answers got scores of shape {list(found.shape)}: a scorer returns one for each")
    if not np.isfinite(found).all():
        at = int(np.flatnonzero(~np.isfinite(found))[0])
        raise UserError(
            f"an answer got the score {found[at]}, which is not finite: correct the scorer (the answer begins "
            f"{flat[at][1][:60]!r})"
        )
    return found.reshape(len(texts), -1)


def expected(chosen_by: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """The expected value of the highest-scoring of n answers, over all subsets of n of the N answers, float64 `[P]`.

    Ties are broken uniformly at random.

    Args:
      chosen_by: scores that the choice is made by, `[P, N]`.
      values: values to average, `[P, N]`.

    Raises:
      ValueError: n is not between 1 and N.
    """
    total = chosen_by.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n must be between 1 and the {total} answers that there are, not {n}")
    below = np.array([math.comb(i, n) for i in range(total + 1)], dtype=object)
    # Share of the subsets whose best answer is the i-th lowest; with exact integers, since binomials overflow floats.
    shares = np.array([float(x) for x in (below[1:] - below[:-1]) / below[-1]])
    found = np.empty(len(values))
    for row, (keys, own) in enumerate(zip(chosen_by, values)):
        _, groups = np.unique(keys, return_inverse=True)
        order = np.argsort(groups, kind="stable")
        weights = np.bincount(groups[order], shares) / np.bincount(groups)
        found[row] = (weights[groups] * own).sum()
    return found


def sizes(most: int) -> list[int]:
    """The powers of two up to `most`, and `most` itself."""
    return sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most})


def curve(chosen_by: np.ndarray, judged: np.ndarray, at: Sequence[int] = ()) -> list[Point]:
    """The best-of-n curve of one scorer.

    Args:
      chosen_by: the scorer's scores, `[P, N]`.
      judged: the judge's scores, `[P, N]`.
      at: values of n; default: `sizes(N)`.
    """
    points = []
    for n in at or sizes(chosen_by.shape[1]):
        own = expected(chosen_by, judged, n)
        error = float(own.std(ddof=1) / math.sqrt(len(own))) if len(own) > 1 else math.nan
        score, proxy = float(own.mean()), float(expected(chosen_by, chosen_by, n).mean())
        ends = max(score - 1.96 * error, float(judged.min())), min(score + 1.96 * error, float(judged.max()))
        points.append(Point(n, kl_bound(n), score, error, ends, proxy))
    return points


def preferences(texts: Sequence[str], scores: np.ndarray, usable: Sequence[bool], most: int) -> list[tuple[int, int]]:
    """Preference pairs of one prompt's answers, as (index of the better answer, index of the worse one).

    The best answer is paired with the worst, the second best with the second worst, and so on, as long as their scores
    differ. Texts that occur twice are used once, empty ones never.

    Args:
      scores: `[N]`.
      usable: `[N]`; other answers are left out.
      most: number of pairs.
    """
    first = {text.strip(): i for i, text in reversed(list(enumerate(texts))) if usable[i] and text.strip()}
    order = sorted(first.values(), key=lambda i: (-scores[i], i))
    return [(better, worse) for better, worse in zip(order, order[::-1]) if scores[better] > scores[worse]][:most]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Scorers compared on the same answers.

    Attributes:
      texts: the answers, `[P][N]`.
      scores: scores of each scorer, `[P, N]`.
      judged: scores of the judge, `[P, N]`.
      curves: best-of-n curve of each scorer.
      best: the scorer whose choices among all N the judge scores highest; of equal scorers, the first.
      ahead: for every other scorer, the difference of `best` from it in the judge's mean score, with the standard error
        of the paired difference.
    """

    texts: Sequence[Sequence[str]]
    scores: Mapping[str, np.ndarray]
    judged: np.ndarray
    curves: Mapping[str, list[Point]]
    best: str
    ahead: Mapping[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without texts and individual scores."""
        curves = {name: [point.to_dict() for point in points] for name, points in self.curves.items()}
        ahead = {
            name: {"difference": value, "error": None if math.isnan(error) else error}
            for name, (value, error) in self.ahead.items()
        }
        return {"curves": curves, "best": self.best, "ahead": ahead, "prompts": len(self.texts)}


def best_of_n(
    prompts: Sequence[Prompt],
    sample: Sample[Prompt],
    scorers: Mapping[str, Score[Prompt]],
    judge: Score[Prompt],
    n: int,
    at: Sequence[int] = (),
) -> Selection:
    """Samples answers, and compares scorers by the judge's scores of their choices (Kanana, arXiv:2502.18934, §3.1).

    Args:
      sample: samples answers.
      scorers: scorers to compare, by name.
      judge: scores the chosen answers.
      n: number of answers per prompt.
      at: numbers of answers on the curves; default: `sizes(n)`.

    Raises:
      UserError: there is no prompt or no scorer, n is below 1, or see `scored`.
    """
    if not prompts or n < 1 or not scorers:
        raise UserError(
            f"best-of-N needs prompts, a scorer and N of at least 1: {len(prompts)}, {len(scorers)} and {n}"
        )
    texts = sample(prompts, n)
    judged = scored(prompts, texts, judge)
    scores = {name: scored(prompts, texts, score) for name, score in scorers.items()}
    at_end = {name: expected(own, judged, n) for name, own in scores.items()}
    best = max(at_end, key=lambda name: at_end[name].mean())
    ahead = {}
    for name, own in at_end.items():
        if name != best:
            apart = at_end[best] - own
            error = apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
            ahead[name] = float(apart.mean()), float(error)
    return Selection(texts, scores, judged, {name: curve(own, judged, at) for name, own in scores.items()}, best, ahead)
