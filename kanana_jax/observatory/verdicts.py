"""A verdict for each task, from pooled and from paired evidence, with its reasons.

Pooled: does the score follow compute in a language over all models? Paired: did it rise when local text was added to
the same model? The two can disagree (JCommonsenseQA does), so both are always reported.
"""

import dataclasses
from collections.abc import Mapping

from kanana_jax.observatory.pairs import Gain
from kanana_jax.observatory.scaling import Fit

ENGLISH, LOCAL, MIXED, UNKNOWN = "comes with English", "needs local data", "mixed", "not enough data"
STRONG_R = 0.5  # of a score with log compute
MATERIAL = 0.2  # of a mean gain, in standard deviations of the task over all models
LARGE = 0.75  # likewise: a gain that decides alone, since a pair holds model and size fixed and pooled data do not
MIN_PAIRS = 5


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict and the sentences that it rests on."""

    verdict: str
    reasons: tuple[str, ...]


def judge(
    fits: Mapping[str, Fit | None], pair: Gain | None, sd: float, language: str, reference: str = "en"
) -> Verdict:
    """Judges one task.

    Args:
      fits: language → the score against compute in it.
      pair: the task's gain over all pairs, or None.
      sd: of the task over all models, in the task's units, to judge the size of a gain.
      language, reference: the local language and the one that models are mostly trained on.
    """
    local, reason_local = _follows(fits.get(language), language)
    english, reason_english = _follows(fits.get(reference), reference)
    rises, reason_pair = _rises(pair, sd, language)
    reasons = (reason_english, reason_local, reason_pair)
    if pair is None or rises is None:
        if local is None and english is None:
            return Verdict(UNKNOWN, reasons)
        if english and local:
            return Verdict(MIXED, (*reasons, "Both languages' compute goes with it and no pairs separate them."))
        return Verdict(ENGLISH if english else LOCAL if local else UNKNOWN, reasons)
    if rises > 0 and (local or not english):
        return Verdict(LOCAL, reasons)
    if rises > 0 and pair["mean"] >= LARGE * sd:
        return Verdict(LOCAL, (*reasons, "It follows English too, but so large a gain of the same models decides."))
    if rises > 0:
        return Verdict(MIXED, (*reasons, "It follows English over all models, and yet rises when local text is added."))
    if local and english:
        return Verdict(
            MIXED, (*reasons, "Both languages' compute goes with it, and local text did not clearly raise it.")
        )
    if english:
        return Verdict(ENGLISH, reasons)
    if local and pair["mean"] > 0:
        return Verdict(LOCAL, (*reasons, "The paired gain is positive but not clear."))
    if local:
        return Verdict(MIXED, (*reasons, "Pooled and paired evidence disagree."))
    return Verdict(UNKNOWN, reasons)


def _follows(fit: Fit | None, language: str) -> tuple[bool | None, str]:
    if fit is None:
        return None, f"Pooled, {language}: too few models with a known budget."
    words = f"Pooled, {language}: r = {fit.r:+.2f} with log compute over {fit.n} models of {fit.families} families"
    if fit.ci95_family is None:
        return None, f"{words}; fewer than three families, so no interval that can be trusted."
    low, high = fit.ci95_family
    clear = low > 0 and fit.r >= STRONG_R
    return clear, f"{words}, slope {fit.slope:+.3f} a decade (95% by family {low:+.3f} to {high:+.3f})."


def _rises(pair: Gain | None, sd: float, language: str) -> tuple[int | None, str]:
    """+1 rises clearly, −1 falls clearly, 0 neither, None unknown."""
    if pair is None or pair["n"] < MIN_PAIRS:
        return (
            None,
            f"Paired: {pair['n'] if pair else 0} continual models with their base, too few (at least {MIN_PAIRS}).",
        )
    mean, n = pair["mean"], pair["n"]
    words = f"Paired: {mean:+.3f} on average when {language} text was added, up in {pair['up']} of {n}"
    if pair["ci95_family"] is None:
        return None, f"{words}; fewer than three families."
    low, high = pair["ci95_family"]
    words += f" (95% by family {low:+.3f} to {high:+.3f}; {mean / sd:+.2f} standard deviations)."
    rounding = 1e-9 * sd  # a family whose gains cancel has a mean of 1e-17, which is no gain
    if abs(mean) < MATERIAL * sd:
        return 0, f"{words[:-1]}, below {MATERIAL:g}: counts as none."
    if low <= rounding and high >= -rounding:
        return 0, words
    return (1 if mean > 0 else -1), words
