"""A verdict for each task, with its reasons: does the task need local data?

A verdict rests on the mixed model of all evidence, which also makes the planner's predictions: does the score rise with
compute in a language when the other language's compute is held fixed? The parts of that evidence are reported as well.
Pooled: does the score follow compute over all models? Paired: did it rise when local text was added to a model? Without
a mixed model (fewer than three families, or no budgets in a language) these two are weighed instead.

The tests of all tasks are corrected for their number in three separate groups: effects of local text, effects of the
reference language, and losses with local text. In a single group, the many tasks that follow the reference language
would let false findings on local text pass.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kanana_jax.observatory import multiplicity
from kanana_jax.observatory.effects import Effect
from kanana_jax.observatory.pairs import MIN_PAIRS, Gain, counted
from kanana_jax.observatory.scaling import Fit

ENGLISH, LOCAL, MIXED, UNKNOWN = "comes with English", "needs local data", "mixed", "not enough data"
NOTHING = "tells nothing"
STRONG_R = 0.5  # least correlation of a score with log compute
MATERIAL = 0.2  # least mean gain, in standard deviations of the task over all models
LARGE = 0.75  # gain in the same units that decides alone, since pairs hold model and size fixed and pooled data do not
SIZE, DIRECTION = "size", "direction"  # the two tests of a gain: over families, and within the families of the pairs
Tests = Mapping[tuple[str, str], float]  # (task, a language or one of the two above) → p-value


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict and the sentences that it rests on.

    Attributes:
      at_budget_ends: different verdicts that result with token budgets at the ends of their intervals.
      unjudged_budget_ends: the ends at which the task has no such model and is not judged.
      p_falls: one-sided p-value for a fall with local text, corrected for the number of tasks; None without a test.
    """

    verdict: str
    reasons: tuple[str, ...]
    at_budget_ends: tuple[str, ...] = ()
    unjudged_budget_ends: tuple[str, ...] = ()
    p_falls: float | None = None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence on one task.

    Attributes:
      fits: language → law of the score in that language's compute.
      pair: the gain over all pairs, or None.
      sd: standard deviation of the task over all models, in the task's units, to judge the size of a gain.
      silent: a sentence that all models guess or differ only by chance (`sampling.tells_nothing`), or "".
      note: a sentence about scores that the figures leave out, or "".
      effects: language → effect in the mixed model; empty if there is none.
    """

    fits: Mapping[str, Fit | None]
    pair: Gain | None
    sd: float
    silent: str = ""
    note: str = ""
    effects: Mapping[str, Effect] = dataclasses.field(default_factory=dict)


def judge_all(evidence: Mapping[str, Evidence], language: str, reference: str = "en") -> dict[str, Verdict]:
    """Judges every task, with p-values corrected for the tests of all tasks.

    Args:
      evidence: task → evidence.
      language: the local language.
      reference: the language that models are mostly trained on.
    """
    p: dict[tuple[str, str], float | None] = {}
    of_reference: dict[tuple[str, str], float | None] = {}
    for task, known in evidence.items():
        if known.silent:
            continue
        if {reference, language} <= {*known.effects}:
            p[task, language] = known.effects[language]["p_rises"]
            of_reference[task, reference] = known.effects[reference]["p_rises"]
            continue
        for lang, found in ((reference, of_reference), (language, p)):
            fit = known.fits.get(lang)
            found[task, lang] = fit.p_rises if fit else None
        if known.pair is not None and known.pair["n"] >= MIN_PAIRS:
            p[task, SIZE], p[task, DIRECTION] = known.pair["p_family"], known.pair["p_direction"]
    tests = multiplicity.adjusted(of_reference) | multiplicity.adjusted(p)
    falls = multiplicity.adjusted({task: _p_falls(known, language) for task, known in evidence.items()})
    judged = {task: judge(task, known, tests, language, reference) for task, known in evidence.items()}
    return {
        task: dataclasses.replace(
            found, reasons=(*found.reasons, *filter(None, (evidence[task].note,))), p_falls=falls.get(task)
        )
        for task, found in judged.items()
    }


def _p_falls(known: Evidence, language: str) -> float | None:
    """p-value for a fall with local text, by the mixed model or else the pairs; None for an uninformative task."""
    if known.silent:
        return None
    if language in known.effects:
        return known.effects[language]["p_falls"]
    if known.pair is None or known.pair["n"] < MIN_PAIRS or known.pair["p_family"] is None:
        return None
    half = known.pair["p_family"] / 2
    return half if known.pair["mean"] < 0 else 1 - half


def judge(task: str, known: Evidence, tests: Tests, language: str, reference: str = "en") -> Verdict:
    """Judges one task.

    Args:
      tests: corrected p-values of all tests.
    """
    if {reference, language} <= {*known.effects}:
        return _of_all(task, known, tests, language, reference)
    pair = known.pair
    local, reason_local = _follows(known.fits.get(language), language, tests.get((task, language)))
    english, reason_english = _follows(known.fits.get(reference), reference, tests.get((task, reference)))
    rises, reason_pair = _rises(pair, known.sd, language, tests.get((task, SIZE)), tests.get((task, DIRECTION)))
    reasons = (reason_english, reason_local, reason_pair)
    if known.silent:
        return Verdict(NOTHING, (known.silent, *reasons))
    if pair is None or rises is None:
        if local is None and english is None:
            return Verdict(UNKNOWN, reasons)
        if english and local:
            return Verdict(MIXED, (*reasons, "Both languages' compute goes with it and no pairs separate them."))
        return Verdict(ENGLISH if english else LOCAL if local else UNKNOWN, reasons)
    if rises > 0 and (local or not english):
        return Verdict(LOCAL, reasons)
    if rises > 0 and pair["mean"] >= LARGE * known.sd:
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


def _of_all(task: str, known: Evidence, tests: Tests, language: str, reference: str) -> Verdict:
    """The verdict by the mixed model; a need for local data also requires a material gain in pairs, if known."""
    local, english = known.effects[language], known.effects[reference]
    words = {}
    for lang, effect in ((reference, english), (language, local)):
        low, high = effect["ci95"]
        told = f"{effect['per_decade']:+.3f} with ten times the {lang} compute (95% by family {low:+.3f} to {high:+.3f}"
        words[lang] = told + (f"; corrected p {tests[task, lang]:.3f})" if (task, lang) in tests else ")")
    reasons = (f"All models and pairs together: {words[reference]}, {words[language]}.",)
    reasons += (_follows(known.fits.get(reference), reference, None)[1],)
    reasons += (_follows(known.fits.get(language), language, None)[1],)
    reasons += (_rises(known.pair, known.sd, language, None, None)[1],)
    if known.silent:
        return Verdict(NOTHING, (known.silent, *reasons))
    size = local["typical_sd"]
    judged = known.pair is not None and known.pair["n"] >= MIN_PAIRS
    small = size < MATERIAL or (judged and known.pair["mean"] < MATERIAL * known.sd)
    rises = _clear(tests.get((task, language))) and not small
    follows = _clear(tests.get((task, reference))) and english["typical_sd"] >= STRONG_R
    if rises and follows and size >= LARGE:
        return Verdict(LOCAL, (*reasons, f"It follows {reference} too, but so large an effect of {language} decides."))
    if rises:
        more = f"It follows {reference} compute, and yet rises with {language} text."
        return Verdict(MIXED, (*reasons, more)) if follows else Verdict(LOCAL, reasons)
    if _clear(tests.get((task, language))):
        more = f"What {language} text adds is small beside how models differ (below {MATERIAL:g} standard deviations)."
        reasons = (*reasons, more)
    return Verdict(ENGLISH if follows else UNKNOWN, reasons)


def _follows(fit: Fit | None, language: str, p: float | None) -> tuple[bool | None, str]:
    if fit is None:
        return None, f"Pooled, {language}: too few models with a known budget."
    words = f"Pooled, {language}: r = {fit.r:+.2f} with log compute over {fit.n} models of {fit.families} families"
    if fit.ci95_family is None:
        return None, f"{words}; fewer than three families, so no trustworthy interval."
    low, high = fit.ci95_family
    words += f", slope {fit.slope:+.3f} per decade (95% by family {low:+.3f} to {high:+.3f}"
    if p is None:
        return False, f"{words})."
    return _clear(p) and fit.r >= STRONG_R, f"{words}; corrected p {p:.3f})."


def _clear(p: float | None) -> bool:
    return p is not None and p <= multiplicity.LEVEL


def _rises(
    pair: Gain | None, sd: float, language: str, size: float | None, direction: float | None
) -> tuple[int | None, str]:
    """+1 if the task rises clearly in pairs, −1 if it falls clearly, 0 if neither, None if unknown; and a sentence.

    Args:
      sd: standard deviation of the task over all models.
      size, direction: corrected p-values.
    """
    if pair is None or pair["n"] < MIN_PAIRS:
        return (
            None,
            f"Paired: {pair['n'] if pair else 0} continual models with their base, too few (at least {MIN_PAIRS}).",
        )
    mean = pair["mean"]
    sign = 1 if mean > 0 else -1
    words = f"Paired: {mean:+.3f} on average when {language} text was added ({mean / sd:+.2f} standard deviations), "
    words += counted(pair)
    if pair["ci95_family"] is not None:
        low, high = pair["ci95_family"]
        words += f" (95% by family {low:+.3f} to {high:+.3f}"
        words += f"; corrected p {size:.3f})" if size is not None else ")"
    if abs(mean) < MATERIAL * sd:
        return 0, f"{words}; small beside how models differ (below {MATERIAL:g} standard deviations)."
    if _clear(size):
        return sign, f"{words}."
    if _clear(direction) and abs(mean) >= LARGE * sd:
        return sign, f"{words}: the direction is clear in these families, the size is not."
    if pair["ci95_family"] is None:
        return None, f"{words}; fewer than three families, which say nothing of others."
    return 0, f"{words}."


def as_json(verdict: Verdict, known: Evidence, language: str) -> dict[str, Any]:
    """The verdict as stored in `components.json`; `language` is the task's."""
    return {
        "verdict": verdict.verdict,
        "at_budget_ends": verdict.at_budget_ends,
        "unjudged_budget_ends": verdict.unjudged_budget_ends,
        "p_falls": verdict.p_falls,
        "falls": _clear(verdict.p_falls),
        "reasons": verdict.reasons,
        "language": language,
        "pooled_r": {lang: fit.r for lang, fit in known.fits.items() if fit},
        "paired": known.pair,
        "effects": known.effects,
    }
