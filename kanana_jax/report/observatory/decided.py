"""The answer to a plan or target: one sentence, the alternatives, and the most informative next measurements."""

from kanana_jax.report.observatory.sentences import Json, inverse_sentence, language, recipes, two_digits
from kanana_jax.report.page import Table

_TRAINED, _AS_IT_IS = "{tokens} on {model}", "{model} as it is"


def headline(study: Json) -> str:
    """The decision in one sentence, or, for a target without a number of tokens, the tokens that it needs."""
    plan = study["plan"]
    where = language(plan["language"])
    inverse = inverse_sentence(study)
    if not plan.get("decision"):
        return inverse
    asked = plan["decision"]["choices"][0]
    words = (
        f"{billions(asked['tokens'])} {where} tokens on {study['labels'][asked['model']]}: {plan['decision']['measure']} "
        f"{score(asked['before'])} → {score(asked['after'])} (95% {_span(asked['after_ci95'])}), "
        f"{chance(plan['decision'])} {percent(asked['probability'])}"
    )
    side = plan["decision"]["side"]
    if side:
        row = next(m for m in plan["measures"] if m["measure"] == side)
        lost = f"{side} {score(row['before'])} → {score(asked['side'])} ({_span(asked['side_ci95'])})"
        words += f", at the price of {lost}" if plan["decision"]["side_clear"] else f"; the largest predicted loss, not clear, is {lost}"
        words += recipes(study)
    if asked["days"]:
        words += f"; {_range(asked['days'])} days"
        words += f" and a cost of {_range(asked['money'])}" if asked["money"] else ""
        words += f" on {plan['cost']['topology']}" if plan["cost"]["topology"] else ""
    if asked["extrapolates"]:
        words = f"Beyond what any pair has shown ({'; '.join(asked['extrapolates'])}): {words}"
    return words + "." if plan["tokens_asked"] else f"{inverse} {words}."


def further(study: Json) -> list[str]:
    """Further sentences: tokens for the target, the pilot, the next measurement, and caveats about the price."""
    plan = study["plan"]
    decision = plan.get("decision")
    if not decision:
        return []
    found = [inverse_sentence(study)] if "inverse" in plan and plan["tokens_asked"] else []
    found += [words for words in (over_budgets(study), not_helped(study)) if words]
    if "pilot" in decision:
        found.append(f"{pilot(study)} {following(study)}".strip())
    if "cost" not in plan:
        found.append("Days and cost: add --cost PLAN.json, which kanana plan --json writes.")
    elif plan["cost"]["price"] is None:
        found.append(f"Cost: {plan['cost']['source']} has no price; make it with --config.plan.prices set.")
    return found


def rivals(study: Json) -> Table | None:
    """The plan and its alternatives as a table."""
    plan = study["plan"]
    decision = plan.get("decision")
    if not decision:
        return None
    side, paid = decision["side"], any(c["days"] for c in decision["choices"])
    money = any(c["money"] for c in decision["choices"])
    columns = ["choice", decision["measure"], chance(decision)]
    columns += [side] * bool(side) + ["days"] * paid + ["cost"] * money
    rows = []
    for c in decision["choices"]:
        measured = c["after_ci95"] is None
        words = _AS_IT_IS if measured else _TRAINED
        row = [words.format(tokens=billions(c["tokens"]), model=study["labels"][c["model"]])]
        row[0] += " (extrapolated)" if c["extrapolates"] else ""
        row.append(score(c["after"]) + ("" if measured else f" ({_span(c['after_ci95'])})"))
        row.append("–" if measured else percent(c["probability"]))
        row += [score(c["side"])] * bool(side)
        row += [_range(c["days"]) if c["days"] else "–"] * paid
        row += [_range(c["money"]) if c["money"] else "–"] * money
        rows.append(row)
    caption = f"Training, or a model as it is; {decision['measure']} with its 95% interval for one new model."
    return Table(columns, rows, caption)


def over_budgets(study: Json) -> str:
    """The plan's score with token budgets at the ends of their intervals; "" if no printed digit changes."""
    measure = study["plan"]["decision"]["measure"]
    row = next(m for m in study["plan"]["measures"] if m["measure"] == measure)
    known, over = ([row["before"] + x for x in (*pair, *span)] for pair, span in (
        ((row["gain"], row["gain"]), row["gain_ci95"]), (row["gain_over_budgets"], row["gain_ci95_over_budgets"])
    ))  # fmt: skip
    without = row["unpredicted_budget_ends"]
    lacking = f"At {' or '.join(without)} there is no such prediction, since the model cannot be fitted there as with the estimates."
    if list(map(score, known)) == list(map(score, over)):
        return lacking if without else ""
    words = f"With token budgets anywhere from the low to the high ends of their intervals: {measure} {_span(over[:2])} (95% {_span(over[2:])})."
    return f"{words} {lacking}" if without else words


def not_helped(study: Json) -> str:
    """The local tasks for which neither the verdict nor the plan's interval shows a gain; "" if there are none."""
    clear = {m["measure"] for m in study["plan"]["measures"] if m["gain_ci95"][0] > 0}
    tasks = {t: v["verdict"] for t, v in study["verdicts"].items() if v["language"] == study["language"] and t not in clear}
    english = [t for t, v in tasks.items() if v == "comes with English"]
    unknown = [t for t, v in tasks.items() if v in ("not enough data", "tells nothing")]
    parts = [f"{', '.join(english)} (they come with {language(study['reference'])})"] if english else []
    parts += [f"{', '.join(unknown)} (undecided)"] if unknown else []
    return f"Not shown to be helped: {'; '.join(parts)}." if parts else ""


def pilot(study: Json) -> str:
    """A sentence on the smallest pilot that halves the interval, or on why there is none."""
    plan, found = study["plan"], study["plan"]["decision"]["pilot"]
    same = "same base, text and recipe"
    if found["tokens"] is not None:
        part = found["tokens"] / plan["tokens"]
        return (
            f"The smallest pilot that halves the interval of {found['measure']} (±{score(found['half'])} to "
            f"±{score(found['half_after'])}) is {billions(found['tokens'])} tokens, {part:.0%} of the plan ({same})."
        )
    if found["untried"]:
        task = found["measure"] in study["tasks"]
        lacking = "the number of its questions (items in tasks.csv) is unknown" if task else "it is a component"
        why = {
            "fewest": "no pair has added fewer than the plan",
            "questions": f"{lacking}, so its sampling error is unknown",
        }[found["untried"]]
        return f"No pilot of fewer tokens can be judged for {found['measure']}: {why}."
    if found["half_after"] >= found["half"]:
        return f"No pilot narrows the interval of {found['measure']} (±{score(found['half'])})."
    words = (
        f"No pilot halves the interval of {found['measure']}: one of {billions(found['nearly'])} tokens ({same}) narrows "
        f"±{score(found['half'])} to ±{score(found['half_after'])}"
    )
    if found["questions"] is None:
        return words + "."
    items = study["tasks"].get(found["measure"], {}).get("items")
    of = f", its {items:.0f} questions leave the rest" if items else ""
    return f"{words}{of}; with {found['questions']:g} times as many it would be half."


def following(study: Json) -> str:
    """A sentence on the further measurement that would narrow the interval most."""
    found = study["plan"]["decision"]["next"]
    if not found:
        return ""
    first = found[0]
    label = study["labels"][first["model"]]
    thing = {
        "pair": f"one more continual model of {label}, its scores published,",
        "score": f"the score of {label}",
        "budget": f"the {language(study['plan']['language'])} tokens of {label}",
    }[first["kind"]]
    return f"What others could measure: {thing} would narrow it most, by {max(first['narrows'], 0):.0%}."


def chance(decision: Json) -> str:
    """The heading of the probability: `P(≥ 0.55)`, or of any rise if there is no target."""
    return "P(rises)" if decision["threshold"] is None else f"P(≥ {decision['threshold']:g})"


def percent(probability: float) -> str:
    """A probability as `77%`, but never certainty: `>99%` and `<1%` at the ends."""
    return ">99%" if probability > 0.995 else "<1%" if probability < 0.005 else f"{probability:.0%}"


def billions(tokens: float) -> str:
    """A number of tokens in words with two significant digits: `100 billion`."""
    return f"{two_digits(tokens / 1e9)} billion"


def score(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _span(interval: list[float]) -> str:
    return f"{score(interval[0])} to {score(interval[1])}"


def _range(interval: list[float]) -> str:
    low, high = map(two_digits, interval)
    return low if low == high else f"{low} to {high}"
