"""The findings of a study, in sentences with their uncertainty."""

from typing import Any

Json = dict[str, Any]
NAMES = {
    "en": "English",
    "ja": "Japanese",
    "ko": "Korean",
    "zh": "Chinese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
}
NOTE = "observational, not causal"
VERDICTS = ("needs local data", "mixed", "comes with English", "not enough data")


def language(code: str) -> str:
    """A language's English name, or its code."""
    return NAMES.get(code, code)


def answer(study: Json) -> list[str]:
    """Three sentences with their uncertainty; fewer where the tables do not say."""
    ratio, local, general = study["explained_variance_ratio"], study["local_component"], study["general_component"]
    count = len(study["kept"])
    words = [f"Of {study['models']} models' scores on {len(study['tasks'])} tasks, {_count(count)} component{'' if count == 1 else 's'} "
             f"stand{'s' if count == 1 else ''} out of noise"]  # fmt: skip
    for role, name, lang in (
        ("general ability", general, study["reference"]),
        ("local ability", local, study["language"]),
    ):
        fit = fit_of(study, name, lang)
        if fit is None:
            continue
        known = list(fit["ci95_family"] or fit["ci95_naive"])
        by = "95% by family" if fit["ci95_family"] else "95%, models taken as independent"
        share = ratio[int(name[2:]) - 1]
        role += "" if name in study["kept"] else ", not clearly above noise"
        weigh = "" if name == general else f", led by {', '.join(_leading(study, name))}"
        words.append(
            f"{name} ({role}{weigh}; {share:.0%} of the variance) goes up {fit['slope_per_decade']:.1f} ({by} {known[0]:.1f} to "
            f"{known[1]:.1f}) with ten times the {language(lang)} compute, R² {fit['r2']:.2f}"
            if known[0] * known[1] > 0
            else f"{name} ({role}{weigh}; {share:.0%} of the variance) does not clearly follow {language(lang)} compute: "
            f"{fit['slope_per_decade']:+.1f} a decade ({by} {known[0]:.1f} to {known[1]:.1f}), R² {fit['r2']:.2f}"
        )
    sentences = [": ".join(words[:2]) + ("; " + "; ".join(words[2:]) if words[2:] else "") + "."]
    by_verdict = {v: [t for t, found in study["verdicts"].items() if found["verdict"] == v] for v in VERDICTS}
    parts = [f"{', '.join(tasks)} {_be(v, tasks)}" for v, tasks in by_verdict.items() if tasks]
    sentences.append("Task by task: " + "; ".join(parts) + ".")
    paired = study["pairs"]["summary"]
    if local in paired and paired[local]["n"] >= 3:
        sentences.append(_paired_sentence(study, paired, local, general))
    return sentences


def _paired_sentence(study: Json, paired: Json, local: str, general: str | None) -> str:
    found = paired[local]
    interval = found["ci95_family"]
    words = f"Where {language(study['language'])} text was added to a model ({found['n']} pairs), {local} rose in {found['up']}, by {found['mean']:.2f}"
    words += f" on average (95% by family {interval[0]:.2f} to {interval[1]:.2f})" if interval else " on average"
    tasks = {t: p for t, p in paired.items() if t in study["tasks"] and p["n"]}
    if tasks:
        most, least = max(tasks, key=lambda t: tasks[t]["mean"]), min(tasks, key=lambda t: tasks[t]["mean"])
        parts = [f"most on {most} ({_gain(tasks[most])})"] if tasks[most]["mean"] > 0 else []
        parts += [f"at a price on {least} ({_gain(tasks[least])})"] if tasks[least]["mean"] < 0 else []
        words += ": " * bool(parts) + ", ".join(parts)
    if general in paired:
        words += f"; {general} fell in {paired[general]['down']} of {paired[general]['n']}"
    return words + "."


def _gain(pair: Json) -> str:
    interval = pair["ci95_family"]
    return f"{pair['mean']:+.3f}" + (f", {interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "")


def _be(verdict: str, tasks: list[str]) -> str:
    one = len(tasks) == 1
    return {"needs local data": "needs local data" if one else "need local data",
            "mixed": "is mixed" if one else "are mixed",
            "comes with English": "comes with English" if one else "come with English",
            "not enough data": "cannot be decided from these data"}[verdict]  # fmt: skip


def _count(n: int) -> str:
    return ("no", "one", "two", "three", "four", "five")[n] if n < 6 else str(n)


def _leading(study: Json, name: str, count: int = 3) -> list[str]:
    row = study["loadings"][name]
    return sorted(row, key=lambda t: -row[t])[:count]


def fit_of(study: Json, name: str | None, lang: str) -> Json | None:
    return next((f for f in study["fits"] if f["component"] == name and f["language"] == lang), None)


def inverse_sentence(plan: Json, where: str) -> str:
    """The answer to `--target`: the tokens that the wanted score takes."""
    found = plan["inverse"]
    tokens, (few, many) = found["tokens"], found["tokens_ci95"]

    def amount(value: float | None) -> str:
        return "more than 100 trillion" if value is None else f"{value / 1e9:,.1f} billion"

    words = (f"{found['target']} = {found['value']:g} (now {found['before']:.3f}) is predicted at {amount(tokens)} added {where} tokens; "
             f"within the 95% prediction interval from {amount(few)} to {amount(many)}.")  # fmt: skip
    if found["extrapolates"]:
        words += f" This is an extrapolation: the pairs added {found['seen'][0] / 1e9:.0f} to {found['seen'][1] / 1e9:.0f} billion."
    return words + f" {NOTE.capitalize()}."


def wider_sentence(study: Json) -> str:
    """Returns whether intervals by family are wider than naive ones, and why they are the ones to trust."""
    fit = fit_of(study, study["local_component"], study["language"])
    if fit is None or fit["ci95_family"] is None:
        return "There are fewer than three families, so that only naive intervals can be given; they are too narrow."
    wide, naive = (fit[k][1] - fit[k][0] for k in ("ci95_family", "ci95_naive"))
    counts: dict[str, int] = {}
    for family in study["families"].values():
        counts[family] = counts.get(family, 0) + 1
    most = max(counts, key=lambda family: counts[family])
    words = "wider than" if wide > naive else "not wider than"
    return (
        f"Intervals by family are {words} naive ones ({wide:.2f} against {naive:.2f} for {study['local_component']}): a naive bootstrap takes every "
        f"model for an independent draw, but {counts[most]} of the {study['models']} models are of the family {most} and share its weights "
        "and data, so that there is less evidence than there are models. Whole families are resampled instead."
    )
