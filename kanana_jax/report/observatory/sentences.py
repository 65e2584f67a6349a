"""The findings of a study as sentences, with their uncertainty."""

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
MANY_PAIRS = 5  # with fewer pairs, a rise in all of them says little
SHOWN = 0.0005  # of a task's range: smaller falls are printed as zero
NOTE = "observational, not causal"
_DIRECTION = "the direction is clear"  # part of the reason of a verdict that rests on a gain's direction, not its size
VERDICTS = ("needs local data", "mixed", "comes with English", "not enough data", "tells nothing")


def language(code: str) -> str:
    """A language's English name, or its code."""
    return NAMES.get(code, code)


def general(study: Json) -> list[str]:
    """Up to four findings with their uncertainty, the most useful first."""
    ratio, local, general = study["explained_variance_ratio"], study["local_component"], study["general_component"]
    count = len(study["kept"])
    words = [f"Of {study['models']} models' scores on {len(study['tasks'])} tasks, {_count(count)} component{'' if count == 1 else 's'} "
             f"stand{'s' if count == 1 else ''} out from noise" if count else
             f"{study['models']} models' scores on {len(study['tasks'])} tasks have no component that stands out from noise, so none is interpreted"]  # fmt: skip
    for role, name, lang in (
        ("general ability", general, study["reference"]),
        ("local ability", local, study["language"]),
    ):
        told = _slope(study, name, lang)
        if told is None:
            continue
        share = ratio[int(name[2:]) - 1]
        weigh = "" if name == general else f", led by {', '.join(_leading(study, name))}"
        words.append(f"{name} ({role}{weigh}; {share:.0%} of the variance) {told}")
    if general and not local and study["language"]:
        words.append("no local ability stands out beside it")
    found = useful(study)
    sentences = [found] if found else []
    sentences.append(": ".join(words[:2]) + ("; " + "; ".join(words[2:]) if words[2:] else "") + ".")
    by_verdict = {v: [t for t, found in study["verdicts"].items() if found["verdict"] == v] for v in VERDICTS}
    parts = [f"{', '.join(tasks)} {_be(v, tasks)}" for v, tasks in by_verdict.items() if tasks]
    if parts:
        sentences.append("Task by task: " + "; ".join(parts) + _at_budget_ends(study) + ".")
    paired = study["pairs"]["summary"]
    if local in paired and paired[local]["n"] >= 3:
        sentences.append(_paired_sentence(study, paired, local, general))
    return sentences


def _at_budget_ends(study: Json) -> str:
    """A sentence on the verdicts that depend on the estimates of token budgets; "" if none does."""
    lists = {key: [task for task, v in study["verdicts"].items() if v[key]] for key in ("at_budget_ends", "unjudged_budget_ends")}
    moved, unjudged = lists.values()
    words = f"{', '.join(moved)} would be judged otherwise" if moved else ""
    if unjudged:
        which = f"all {len(unjudged)}" if len(unjudged) == len(study["verdicts"]) > 1 else ", ".join(unjudged)
        words += f"{' and ' if moved else ''}{which} cannot be judged"
    return f"; with token budgets at an end of their intervals {words}" if words else ""


def _slope(study: Json, name: str | None, lang: str) -> str | None:
    """A component's slope in compute: from the mixed model, as verdicts and plans, or else from its law."""
    effects, fit = study["mixed"].get(name, {}).get("effects", {}), fit_of(study, name, lang)
    where = language(lang)
    if lang in effects:
        slope, (low, high), by, more = effects[lang]["per_decade"], effects[lang]["ci95"], "95% by family", ""
        fixed = [language(other) for other in effects if other != lang]
        more = f", at equal {fixed[0]} compute" if fixed else ""
    elif fit is not None:
        slope, (low, high) = fit["slope_per_decade"], fit["ci95_family"] or fit["ci95_naive"]
        by = "95% by family" if fit["ci95_family"] else "95%, models taken as independent"
        more = f", R² {fit['r2']:.2f}"
    else:
        return None
    if low * high > 0:
        way = "up" if low > 0 else "down"
        return f"goes {way} {abs(slope):.1f} ({by} {low:.1f} to {high:.1f}) with ten times the {where} compute{more}"
    return f"does not clearly follow {where} compute{more}: {slope:+.1f} per decade ({by} {low:.1f} to {high:.1f})"


def useful(study: Json) -> str:
    """The tasks that local text helps, and the losses in others; "" if the study says nothing about local text."""
    verdicts, where = study["verdicts"], language(study["language"])
    if not verdicts:
        return ""
    counts = {verdict: sum(v["verdict"] == verdict for v in verdicts.values()) for verdict in VERDICTS}
    if counts["not enough data"] + counts["tells nothing"] == len(verdicts):
        return _undecided(study, where, counts["tells nothing"])
    english = counts["comes with English"]
    words = _helped(study) or f"Added {where} text is shown to help none of the {len(verdicts)} tasks"
    return f"{words}{_price(study)}; {english} of {len(verdicts)} tasks come with {language(study['reference'])}."


def _undecided(study: Json, where: str, silent: int) -> str:
    """The sentence for a study without any verdict: the direction of change, if all pairs agree."""
    tasks = f"none of the {len(study['verdicts'])} tasks can be decided"
    words = f"These {study['models']} models do not show what added {where} text does: {tasks}"
    if silent:
        on = "since their" if silent == len(study["verdicts"]) else f"and on {silent} of them"
        words += f", {on} scores are chance or too alike"
    paired = {t: v["paired"] for t, v in study["verdicts"].items() if v["paired"] and v["verdict"] != "tells nothing"}
    rose = [t for t, pair in paired.items() if pair["up"] == pair["n"] >= MANY_PAIRS]
    if rose:
        most = max(rose, key=lambda t: paired[t]["n"])
        words += f"; {most} was {counted(paired[most])}, which shows a direction in these but no size"
    return words + "."


def _price(study: Json) -> str:
    """The task that loses the largest part of its range, among clear falls and, if different, among all tasks.

    A fall is clear if its interval lies below zero and it survives the correction for all tasks, since the largest of
    many is picked. Falls are those of the mixed model, as for plans, or else of the pairs.
    """
    verdicts, lang = study["verdicts"], study["language"]
    asked = {t: v for t, v in verdicts.items() if v["verdict"] != "tells nothing"}
    by_all = {t: v["effects"][lang] for t, v in asked.items() if lang in v["effects"]}
    if by_all:
        changes = {t: (e["per_decade"], e["ci95"]) for t, e in by_all.items()}
        told = {t: f"{t} ({_per_decade(by_all[t], study)})" for t in changes}
    else:
        paired = {t: v["paired"] for t, v in asked.items() if v["paired"]}
        changes = {t: (p["mean"], p["ci95_family"]) for t, p in paired.items()}
        told = {t: f"{t} ({_gain(p)})" for t, p in paired.items()}
    parts = {t: _of_range(study, t, change) for t, (change, _) in changes.items()}
    falls = sorted((t for t in parts if parts[t] < -SHOWN), key=lambda t: parts[t])
    clear = [t for t in falls if verdicts[t]["falls"] and changes[t][1] is not None and changes[t][1][1] < 0]
    if not falls:
        return ""
    if not clear:
        return f"; the largest fall, not clear, is that of {told[falls[0]]}{recipes(study)}"
    words = f"; its price is a fall of {told[clear[0]]}{recipes(study)}"
    more = f"; larger, but not clear after the correction for all tasks, is that of {told[falls[0]]}"
    return words if clear[0] == falls[0] else words + more


def _helped(study: Json) -> str:
    """The tasks that need local data, by their evidence: interval above zero, only the direction clear, or neither."""
    needing = {t: v for t, v in study["verdicts"].items() if v["verdict"] == "needs local data"}
    paired = {t: v["paired"] for t, v in needing.items() if v["paired"]}
    by_all = {t: v["effects"][study["language"]] for t, v in needing.items() if study["language"] in v["effects"]}
    spans = {t: by_all[t]["ci95"] if t in by_all else v["paired"] and v["paired"]["ci95_family"] for t, v in needing.items()}
    clear = [t for t, span in spans.items() if span and span[0] > 0]
    directed = [t for t in paired if t not in clear and any(_DIRECTION in r for r in needing[t]["reasons"])]
    rest = [t for t in needing if t not in (*clear, *directed)]
    told = {t: f"{t} ({_evidence(by_all.get(t), paired.get(t), study)})" for t in needing if t in by_all or t in paired}
    parts = []
    if clear:
        size = {t: by_all[t]["per_decade"] if t in by_all else paired[t]["mean"] for t in clear}
        best = max(clear, key=lambda t: _of_range(study, t, size[t]))
        parts.append(f"helps {told[best]}" if len(clear) == 1 else f"helps {', '.join(clear)}, most {told[best]}")
    if directed:
        parts.append(f"raises, in direction only, {', '.join(told[t] for t in directed)}")
    if rest:
        parts.append(f"is not clearly shown to help {', '.join(told.get(t, t) for t in rest)}")
    return f"Added {language(study['language'])} text {'; it '.join(parts)}" if parts else ""


def recipes(study: Json) -> str:
    """The qualification of a loss, ' with the recipes of 2023–24'; "" if the pairs have no dates."""
    span = study["pairs"]["years"]
    if span is None:
        return ""
    first, last = span
    return f" with the recipes of {first}" + (f"–{last % 100:02d}" if last > first else "")


def _evidence(effect: Json | None, pair: Json | None, study: Json) -> str:
    """The effect in the mixed model and the gain in pairs, as far as they exist."""
    parts = [_per_decade(effect, study)] if effect else []
    if pair:
        parts.append(f"{'mean of the pairs ' if effect else ''}{_gain(pair)}, {counted(pair)}")
    return "; ".join(parts)


def _per_decade(effect: Json, study: Json) -> str:
    low, high = effect["ci95"]
    per = f"with ten times the {language(study['language'])} compute"
    return f"{effect['per_decade']:+.3f} {per}, {low:+.3f} to {high:+.3f}"


def _of_range(study: Json, task: str, gain: float) -> float:
    """A gain as a share of the task's range, since scores may be shares or percentages."""
    about = study["tasks"][task]
    return gain / (about["high"] - about["low"])


def counted(pair: Json) -> str:
    return f"up in {pair['up']} of {pair['n']} pairs of {_count(pair['families'])} famil{'y' if pair['families'] == 1 else 'ies'}"


def _paired_sentence(study: Json, paired: Json, local: str, general: str | None) -> str:
    found = paired[local]
    interval = found["ci95_family"]
    change = (
        f"rose in {found['up']}, by {found['mean']:.2f}"
        if found["mean"] >= 0
        else f"fell in {found['down']}, by {-found['mean']:.2f}"
    )
    words = f"Where {language(study['language'])} text was added to a model ({found['n']} pairs of {found['families']} famil{'y' if found['families'] == 1 else 'ies'}), {local} {change}"
    words += (
        f" on average (95% by family {interval[0]:+.2f} to {interval[1]:+.2f})"
        if interval
        else " on average (of so few families no interval can be given: the direction may be clear, the size is not)"
    )
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
            "not enough data": "cannot be decided from these data",
            "tells nothing": "tells nothing, since its scores are chance or too alike" if one else "tell nothing, since their scores are chance or too alike"}[verdict]  # fmt: skip


def _count(n: int) -> str:
    return ("no", "one", "two", "three", "four", "five")[n] if n < 6 else str(n)


def _leading(study: Json, name: str, count: int = 3) -> list[str]:
    row = study["loadings"][name]
    return sorted(row, key=lambda t: -row[t])[:count]


def fit_of(study: Json, name: str | None, lang: str) -> Json | None:
    return next((f for f in study["fits"] if f["component"] == name and f["language"] == lang), None)


def inverse_sentence(study: Json) -> str:
    """The answer to `--target`: the tokens needed for the score, with two digits; "" if there is no target."""
    plan = study["plan"]
    found = plan.get("inverse")
    if found is None:
        return ""
    tokens, (few, many) = found["tokens"], found["tokens_ci95"]

    def amount(value: float | None) -> str:
        if value is None:
            return "more than 100 trillion"
        return f"{two_digits(value / 1e9)} billion" if value > 1e7 else "hardly any"

    words = (f"{found['target']} {found['value']:g} from {study['labels'][plan['base']]} (now {found['before']:.2f}) takes {amount(tokens)} added "
             f"{language(plan['language'])} tokens (95% {amount(few)} to {amount(many)}).")  # fmt: skip
    if found["extrapolates"]:
        words += f" This is an extrapolation: the pairs added {found['seen'][0] / 1e9:.0f} to {found['seen'][1] / 1e9:.0f} billion."
    return words


def two_digits(value: float) -> str:
    """Rounds to the two digits that are known: 42.7 → 43, 1216 → 1,200, 0.618 → 0.62."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:#.2g}"


def wider_sentence(study: Json) -> str:
    """Compares the widths of jackknife intervals over families with naive and bootstrap ones; says which to trust."""
    fit = fit_of(study, study["local_component"], study["language"])
    if not study["language"] or fit is None:
        return ""
    if fit["ci95_family"] is None:
        return "There are fewer than three families, so that only naive intervals can be given; they are too narrow."
    counts: dict[str, int] = {}
    for family in study["families"].values():
        counts[family] = counts.get(family, 0) + 1
    most = max(counts, key=lambda family: counts[family])
    spans = {k: f"{fit[k][0]:.2f} to {fit[k][1]:.2f}" for k in ("ci95_family", "ci95_naive", "ci95_bootstrap")}
    return (
        f"Intervals by family leave one family out at a time and take Student's t with families − 1 degrees of freedom: {spans['ci95_family']} "
        f"for {study['local_component']}. A naive bootstrap ({spans['ci95_naive']}) treats every model as independent, but {counts[most]} of the "
        f"{study['models']} models are of the family {most} and share its weights and data, so there is less evidence than the number of models "
        f"suggests; a bootstrap of whole families ({spans['ci95_bootstrap']}) is too narrow when these are few."
    )


def _totals(wide: Json) -> str:
    many = len(wide["undisclosed_totals"])
    if not many:
        return ""
    return f", and the {many} of them that do not say how much text they saw {wide['assumed_total_b']:,.0f} billion tokens (another)"


def undisclosed_sentence(study: Json) -> str:
    """The local law's slope when models with undisclosed local tokens are included; "" if there are none."""
    fit = fit_of(study, study["local_component"], study["language"])
    wide = next((f for f in study["fits_with_undisclosed"] if fit and f["component"] == fit["component"]), None)
    if fit is None or wide is None:
        return ""
    low, high = (100 * share for share in wide["assumed_share"])
    words = (
        f"{len(wide['undisclosed_models'])} models disclose no {language(study['language'])} tokens and are not in these laws. If they are given {low:g} to "
        f"{high:g}% of their text (an assumption){_totals(wide)}, the slope of {fit['component']} is {wide['slope_per_decade']:.2f} instead of {fit['slope_per_decade']:.2f}"
    )
    span = wide["ci95_family_and_tokens"]
    return words + (f" (95% by family {span[0]:.2f} to {span[1]:.2f})." if span else ".")
