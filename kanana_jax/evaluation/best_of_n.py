"""Best-of-N: what a policy gains where a scorer chooses among N of its answers, and which scorer chooses best.

Answers are sampled once, N to each prompt, and scored once; the curve over 1, 2, 4 … N is the expectation over all
subsets of that size, not one draw of each (WebGPT, arXiv:2112.09332, appendix I). The
judge whose scores are reported is another than the one that chooses: with the same, the curve is that of a maximum.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from kanana_jax.errors import UserError

Prompt = TypeVar("Prompt")
# (prompts, answers to each) → texts `[P][N]`.
Sample = Callable[[Sequence[Prompt], int], Sequence[Sequence[str]]]
# (prompts, texts) → scores `[P]`; prompt i is that of text i. A reward model, a verifier, a judge.
Score = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Point:
    """A place on a curve.

    Attributes:
      n: answers that are chosen among.
      kl: `kl_bound(n)`, nats.
      score: the judge's, of the answers that are chosen: a mean over prompts.
      error: standard error of the mean over prompts.
      chosen: the mean score by the scorer that chooses.
    """

    n: int
    kl: float
    score: float
    error: float
    chosen: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, with the 95% interval of the score (normal; None for one prompt)."""
        ends = [self.score - 1.96 * self.error, self.score + 1.96 * self.error]
        error = None if math.isnan(self.error) else self.error
        return dataclasses.asdict(self) | {"error": error, "score_ci95": [None, None] if error is None else ends}


def kl_bound(n: int) -> float:
    """KL of best-of-n to the policy that samples, nats: log n − (n − 1)/n.

    arXiv:2009.01325, appendix G.3, where it is exact for scores without ties; an upper bound in general
    (arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n


def scored(prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], score: Score[Prompt]) -> np.ndarray:
    """Scores of all answers, float64 `[P, N]`, from one call.

    Raises:
      UserError: a number of scores that is not that of answers, or a score that is not finite.
    """
    flat = [(prompt, text) for prompt, own in zip(prompts, texts, strict=True) for text in own]
    found = np.asarray(score([prompt for prompt, _ in flat], [text for _, text in flat]), np.float64)
    if found.shape != (len(flat),):
        raise UserError(f"{len(flat)} answers got scores of shape {list(found.shape)}: a scorer returns one for each")
    if not np.isfinite(found).all():
        at = int(np.flatnonzero(~np.isfinite(found))[0])
        raise UserError(
            f"an answer got the score {found[at]}, by which none can be chosen: it begins {flat[at][1][:60]!r}"
        )
    return found.reshape(len(texts), -1)


def expected(chosen_by: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """The expected value of the answer with the highest score among n of N, over all subsets, float64 `[P]`.

    Answers of equal scores are chosen equally often.

    Args:
      chosen_by, values: `[P, N]`.
    """
    total = chosen_by.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n must be between 1 and the {total} answers that there are, not {n}")
    below = np.array([math.comb(i, n) for i in range(total + 1)], dtype=object)
    # Of the subsets, the share whose best is the i-th lowest; exact, since binomials overflow floats.
    shares = np.array([float(x) for x in (below[1:] - below[:-1]) / below[-1]])
    found = np.empty(len(values))
    for row, (keys, own) in enumerate(zip(chosen_by, values)):
        _, groups = np.unique(keys, return_inverse=True)
        order = np.argsort(groups, kind="stable")
        weights = np.bincount(groups[order], shares) / np.bincount(groups)
        found[row] = (weights[groups] * own).sum()
    return found


def sizes(most: int) -> list[int]:
    """1, 2, 4 … and the most."""
    return sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most})


def curve(chosen_by: np.ndarray, judged: np.ndarray, at: Sequence[int] = ()) -> list[Point]:
    """The curve of one scorer under a judge's scores, both `[P, N]`, at some numbers of answers (default: `sizes`)."""
    points = []
    for n in at or sizes(chosen_by.shape[1]):
        own = expected(chosen_by, judged, n)
        error = float(own.std(ddof=1) / math.sqrt(len(own))) if len(own) > 1 else math.nan
        proxy = float(expected(chosen_by, chosen_by, n).mean())
        points.append(Point(n, kl_bound(n), float(own.mean()), error, proxy))
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
      scores, judged: `[P, N]` of each scorer, and of the judge.
      curves: of each scorer.
      best: the scorer whose choice among all N the judge scores highest; the first of several.
      ahead: by how much its mean is above that of every other, with the standard error of the paired difference.
    """

    texts: Sequence[Sequence[str]]
    scores: Mapping[str, np.ndarray]
    judged: np.ndarray
    curves: Mapping[str, list[Point]]
    best: str
    ahead: Mapping[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, without texts and single scores."""
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
    """Samples, scores, and compares scorers by what the judge says of their choices (Kanana, arXiv:2502.18934, §3.1).

    Args:
      at: the numbers of answers on the curves; default: `sizes(n)`.

    Raises:
      UserError: no prompts, n below 1, or scores that are none.
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
