"""The page of a study: the answer, then the evidence section by section."""

from kanana_jax.report.observatory import decided, figures
from kanana_jax.report.observatory.sentences import (
    NOTE,
    VERDICTS,
    Json,
    general,
    language,
    recipes,
    undisclosed_sentence,
    wider_sentence,
)
from kanana_jax.report.page import Block, Details, Figure, KeyValues, Page, Section, Table, Text
from kanana_jax.report.plots import bars
from kanana_jax.report.svg import NARROW, WIDTH

NAMES_OF_FILLING = {"column_means": "column means", "shrunk": "PCA with shrunk singular values, which fills missing cells"}


def page(study: Json, plots: dict[str, Figure] | None = None) -> Page:
    """The report as a page."""
    plots = figures.draw(study) if plots is None else plots
    where = language(study["language"])
    asked, overall = "plan" in study, general(study)
    first = decided.headline(study) if asked else overall[0]
    answered = _answered(study, plots) if asked else [*map(Text, overall[1:]), _figures(study)]
    sections = [
        Section("The answer", [*answered, Text(study["evidence"], "warning")]),
        Section("The plan", _plan(study)),
        Section("Over all models", [*map(Text, overall), _figures(study)] if asked else []),
        Section("Which tasks need local data", _verdicts(study, plots)),
        Section("What follows compute", _fits(study, plots)),
        Section("What continual training did", _pairs(study)),
        Section("Components of ability", _components(study, plots)),
        Section("Correlations", _correlations(study, plots)),
        Section("Tasks from components, beyond a FLOPs cut-off", _downstream(study)),
        Section("What to mistrust", _doubts(study)),
    ]
    local = f"local language {where}" if where else "no local language"
    lead = f"{study['models']} models, {len(study['tasks'])} benchmarks, {local}. {NOTE.capitalize()}."
    title = "What a local-language token budget buys"
    if asked and study["plan"].get("decision"):
        title = f"What {decided.billions(study['plan']['tokens'])} {where} tokens buy"
    return Page(title, lead, sections, first)


def _answered(study: Json, plots: dict[str, Figure]) -> list[Block]:
    table = decided.rivals(study)
    return [*([table] if table else []), *map(Text, decided.further(study)), *_shown(plots, "plan")]


def _figures(study: Json) -> Block:
    items: Json = {"models": study["models"], "families": len(set(study["families"].values()))}
    items |= {"pairs (continual, base)": len(study["pairs"]["models"]), "components above noise": len(study["kept"])}
    return KeyValues(items)


def _plan(study: Json) -> list[Block]:
    plan = study.get("plan")
    if plan is None:
        return []
    where = language(plan["language"])
    blocks: list[Block] = []
    if "measures" not in plan:
        return blocks
    tokens = f"{plan['tokens'] / 1e9:,.0f} billion {where} tokens"
    labels = study["labels"]
    blocks.append(Text(f"{labels.get(plan['base'], plan['base'])}, {plan['params'] / 1e9:.3g}B parameters, trained on with {tokens}. Intervals are "
                       "95% prediction intervals for one new model; scores are kept within their range."))  # fmt: skip
    rows = {m["measure"]: m for m in plan["measures"]}
    local = rows.get(study["local_component"])
    if local:
        low, high = local["gain_ci95"]
        blocks.append(Text(f"{local['measure']} changes by {local['gain']:+.2f} ({low:+.2f} to {high:+.2f})."))
    blocks += [Text(w, "warning") for w in plan["warnings"]]
    columns = ("measure", "before", "change", "95% of the change", "P(rises)", "over all models", "error, unseen")
    for title, wanted in (
        (f"{where} tasks", plan["language"]),
        (f"Side cost{recipes(study)}: {language(study['reference'])} tasks", study["reference"]),
        ("Components", None),
    ):
        chosen = [m for m in plan["measures"] if m["language"] == wanted]
        table = [
            (
                _whole(m["measure"]),
                m["before"],
                m["gain"],
                _whole(f"{m['gain_ci95'][0]:+.3f} to {m['gain_ci95'][1]:+.3f}"),
                _whole(decided.percent(m["rises"])),
                _whole(study["verdicts"].get(m["measure"], {}).get("verdict", "–")),
                m["lofo_rmse"],
            )
            for m in chosen
        ]
        if table:
            formats = {"change": "+.3f", "before": ".3f", "error, unseen": ".3f"}
            blocks.append(Table(columns, table, f"{title}; {NOTE}.", formats=formats))
    blocks.append(Text("The change is this plan's; 'over all models' is the verdict on the task. Both come from one statistical model of all models and pairs: the change is predicted for one "
                       "new model, the verdict tests a slope. A change whose interval contains zero is not established, however large it is compared with the mean of the pairs."))  # fmt: skip
    beyond = [f"{m['measure']}: {', '.join(m['extrapolates'])}" for m in plan["measures"] if m["extrapolates"]]
    if beyond:
        blocks.append(Text("Extrapolation: " + "; ".join(beyond) + ".", "warning"))
    return blocks


def _verdicts(study: Json, plots: dict[str, Figure]) -> list[Block]:
    if not study["verdicts"]:
        return []
    langs = sorted(
        {lang for v in study["verdicts"].values() for lang in v["pooled_r"]}, key=lambda c: c != study["reference"]
    )
    columns = (
        "task",
        "language",
        "verdict",
        *(f"pooled r, {language(c)}" for c in langs),
        "paired gain",
        "95% low",
        "95% high",
        "up",
        "pairs",
    )
    rows = []
    for task, found in sorted(study["verdicts"].items(), key=lambda item: VERDICTS.index(item[1]["verdict"])):
        pair = found["paired"] or {}
        low, high = pair.get("ci95_family") or (None, None)
        pooled = [found["pooled_r"].get(c) for c in langs]
        rows.append(
            (
                _whole(task),
                found["language"],
                _whole(found["verdict"]),
                *pooled,
                pair.get("mean"),
                low,
                high,
                pair.get("up"),
                pair.get("n"),
            )
        )
    formats = dict.fromkeys(columns[3 : 3 + len(langs)], "+.2f") | dict.fromkeys(
        ("paired gain", "95% low", "95% high"), "+.3f"
    )
    reasons = Table(("task", "why"), [(t, " ".join(f["reasons"])) for t, f in study["verdicts"].items()])
    caption = (f"Pooled: correlation with log compute in a language over all models. Paired: continual model minus its base, "
               f"its interval by leaving families out. A finding counts once it survives the correction for all tasks. The two may disagree, since pooled models differ in everything else. {NOTE.capitalize()}.")  # fmt: skip
    return [*_shown(plots, "transfer"), Table(columns, rows, caption, formats=formats), Details("Reasons", [reasons])]


def _fits(study: Json, plots: dict[str, Figure]) -> list[Block]:
    if not study["fits"]:
        return []
    columns = ("component", "compute", "n", "families", "r", "R²", "slope per decade", "95% by family", "with token intervals", "95% naive",
               "error, unseen families", "sd")  # fmt: skip
    rows = []
    for f in study["fits"]:
        spans = [_span(f[key]) for key in ("ci95_family", "ci95_family_and_tokens", "ci95_naive")]
        rows.append((f["component"], language(f["language"]), f["n"], f["families"], f["r"], f["r2"], f["slope_per_decade"], *spans,
                     f["lofo_rmse"], f["sd"]))  # fmt: skip
    formats = {"r": "+.2f", "R²": ".3f", "slope per decade": "+.2f", "error, unseen families": ".2f", "sd": ".2f"}
    caption = (f"Compute is 6·N·D with D the tokens of that language, {'active' if study['active_params'] else 'total'} parameters for mixtures of "
               "experts. Error on unseen families: each family predicted by the others; sd is the error without a law. "
               f"{NOTE.capitalize()}.")  # fmt: skip
    apart = Text("These laws fit one component and one language at a time, over models with reported budgets. They are additional evidence: verdicts, plans and "
                 "the sentences above rest on the model of all models and pairs.")  # fmt: skip
    noise = [name for name in dict.fromkeys(f["component"] for f in study["fits"]) if name not in study["kept"]]
    words = f"{', '.join(noise)} {'is' if len(noise) == 1 else 'are'} not clearly above noise: a law of {'it' if len(noise) == 1 else 'them'} is not a finding."
    mistrust = [Text(words, "warning")] if noise else []
    blocks: list[Block] = [*([apart] if study["mixed"] else []), *mistrust, *_shown(plots, "general", "local")]
    blocks += [Text(words) for words in (wider_sentence(study), undisclosed_sentence(study)) if words]
    blocks.append(Table(columns, rows, caption, formats=formats))
    return [*blocks, *_shown(plots, "general_other", "local_other")]


def _span(interval: list[float] | None) -> str:
    return "–" if interval is None else _whole(f"{interval[0]:.2f} to {interval[1]:.2f}")


def _whole(text: str) -> str:
    """Text with non-breaking spaces, so that a table cell does not wrap it."""
    return text.replace(" ", "\u00a0")


def _pairs(study: Json) -> list[Block]:
    summary = study["pairs"]["summary"]
    if not summary:
        return [Text("No model has its base in the table.")]
    names = [n for n in summary if n not in study["tasks"]] + sorted(
        (n for n in summary if n in study["tasks"]), key=lambda n: -summary[n]["mean"]
    )
    rows = [
        (n, s["n"], s["mean"], *(s["ci95_family"] or (None, None)), s["up"], s["down"])
        for n in names
        for s in [summary[n]]
    ]
    columns = ("measure", "pairs", "mean change", "95% low", "95% high", "up", "down")
    formats = dict.fromkeys(columns[2:5], "+.3f")
    chart = {n: summary[n]["mean"] for n in names if n in study["tasks"]}
    labels = study["labels"]
    made = Table(("model", "base", "family", "added tokens, 1e9"),
                 [(labels[m], labels[b], f, t) for m, b, f, t in study["pairs"]["models"]])  # fmt: skip
    x = f"continual minus base ({NOTE})"
    drawn = lambda width: bars(list(chart), {"mean change": list(chart.values())}, x=x, width=width)  # noqa: E731
    return [
        Figure(drawn(WIDTH), "Mean change by task.", drawn(NARROW)),
        Table(columns, rows, f"Intervals leave one family out at a time. {NOTE.capitalize()}.", formats=formats),
        Details(f"The {len(study['pairs']['models'])} pairs", [made]),
    ]


def _components(study: Json, plots: dict[str, Figure]) -> list[Block]:
    kept = study["kept"]
    subject = f"{', '.join(kept)} {'is' if len(kept) == 1 else 'are'}" if kept else "No component is"
    rest = [f"PC{k}" for k in range(1, 4) if f"PC{k}" not in kept and f"PC{k}" in study["loadings"]]
    words = f"{subject} clearly above noise that is as correlated within families as the scores are and, after PC1, as large as what PC1 leaves (parallel analysis)"
    words += (
        f"; {', '.join(rest)} {'is' if len(rest) == 1 else 'are'} not, and should not be interpreted."
        if rest
        else "."
    )
    axes = Table(
        ("component", "variance", "95% bootstrap", "|cos| to the full axis, 2.5%"),
        [
            (a["component"], study["explained_variance_ratio"][i], _span(a["ratio_ci95"]), a["cosine_p2_5"])
            for i, a in enumerate(study["axes"])
        ],
        "Models resampled with replacement.",
        formats={"variance": ".3f", "|cos| to the full axis, 2.5%": ".2f"},
    )
    first = list(list(study["loadings"])[:3])
    loadings = Table(
        ("task", *first),
        [(t, *(study["loadings"][n][t] for n in first)) for t in study["tasks"]],
        formats=dict.fromkeys(first, "+.2f"),
    )
    cells = study["missing_cells"]
    hidden = [
        (f"iterative PCA, {k} component{'s' if k != '1' else ''}" if k.isdigit() else NAMES_OF_FILLING[k], v)
        for k, v in cells["rmse"].items()
    ]
    return [Text(words), *_shown(plots, "scree", "biplot", "loadings"), axes, Details("Loadings", [loadings]),
            Table(("filling of hidden cells", "RMSE"), hidden, f"{cells['share']:.0%} of the cells hidden, in score units.", formats={"RMSE": ".3f"})]  # fmt: skip


def _correlations(study: Json, plots: dict[str, Figure]) -> list[Block]:
    groups = [(i + 1, ", ".join(g)) for i, g in enumerate(study["clusters"]["groups"])]
    pairs = [(p["task"], p["pair"], p["r"]) for p in study["cross_lingual"]]
    blocks = [*_shown(plots, "correlations"), Table(("cluster", "tasks"), groups, "Average linkage on 1 − r.")]
    return blocks + ([Table(("task", "in the other language", "r"), pairs, formats={"r": ".3f"})] if pairs else [])


def _downstream(study: Json) -> list[Block]:
    found = study["downstream"]
    if not found["tasks"]:
        return []
    columns = (
        "task",
        "components",
        "models below",
        "above",
        "error below",
        "error above",
        "of the mean, above",
        "better than the mean",
    )
    rows = [(r["task"], r["components"], r["train_models"], r["test_models"], r["train_rmse"], r["test_rmse"], r["baseline_rmse"],
             "yes" if r["test_rmse"] < r["baseline_rmse"] else "no") for r in found["tasks"]]  # fmt: skip
    caption = (f"Observational scaling laws (Ruan et al. 2024): a sigmoid of the other tasks' components, fitted to models of at most "
               f"1e{found['cutoff_log10_flops']:.1f} FLOPs, tried on larger ones. {NOTE.capitalize()}.")  # fmt: skip
    return [Table(columns, rows, caption, formats=dict.fromkeys(columns[4:7], ".3f"))]


def _doubts(study: Json) -> list[Block]:
    standing = [
        study["evidence"]
        + " A controlled sweep of small models that differ only in their budgets can confirm it: their tables pass through "
        "the same command.",
        "Token budgets are often estimates (token_ledger.csv says which); they are sampled from triangular distributions over their intervals, "
        "which is an assumption.",
    ]
    return [*(Text(w, "warning") for w in study["warnings"]), *map(Text, standing)]


def _shown(plots: dict[str, Figure], *names: str) -> list[Block]:
    return [plots[n] for n in names if n in plots]
