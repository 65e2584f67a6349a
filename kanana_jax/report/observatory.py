"""A study's `components.json` → `report.html` and `plots/*.svg`: the answer first, then the evidence."""

import json
import pathlib
import re
from typing import Any

from kanana_jax.report.page import Block, Details, Figure, KeyValues, Page, Section, Table, Text, write
from kanana_jax.report.plots import Series, bars, lines
from kanana_jax.report.scatter import Band, Points, scatter, tree_heatmap

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


def write_observatory_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `DIR/report.html` and `DIR/plots/` from `DIR/components.json`.

    Raises:
      FileNotFoundError: there is no study in the folder.
    """
    study = json.loads((folder / "components.json").read_text(encoding="utf-8"))
    plots = _plots(study)
    for name, figure in plots.items():
        _write_svg(folder / "plots" / f"{name}.svg", figure.svg)
    return write(page(study, plots), folder / "report.html")


def page(study: Json, plots: dict[str, Figure] | None = None) -> Page:
    """The report as a page."""
    plots = _plots(study) if plots is None else plots
    where = language(study["language"])
    sections = [
        Section("The answer", [*map(Text, answer(study)), Text(study["evidence"], "warning"), _figures(study)]),
        Section("The plan", _plan(study)),
        Section("Which tasks need local data", _verdicts(study, plots)),
        Section("What follows compute", _fits(study, plots)),
        Section("What continual training did", _pairs(study)),
        Section("Components of ability", _components(study, plots)),
        Section("Correlations", _correlations(study, plots)),
        Section("Tasks from components, beyond a FLOPs cut-off", _downstream(study)),
        Section("What to mistrust", _doubts(study)),
    ]
    lead = f"{study['models']} models, {len(study['tasks'])} benchmarks, local language {where}. {NOTE.capitalize()}."
    return Page("What a local-language token budget buys", lead, sections)


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
        fit = _fit(study, name, lang)
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
    told = [f"{', '.join(tasks)} {_be(v, tasks)}" for v, tasks in by_verdict.items() if tasks]
    sentences.append("Task by task: " + "; ".join(told) + ".")
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
            "not enough data": "cannot be told from these data"}[verdict]  # fmt: skip


def _count(n: int) -> str:
    return ("no", "one", "two", "three", "four", "five")[n] if n < 6 else str(n)


def _leading(study: Json, name: str, count: int = 3) -> list[str]:
    row = study["loadings"][name]
    return sorted(row, key=lambda t: -row[t])[:count]


def _fit(study: Json, name: str | None, lang: str) -> Json | None:
    return next((f for f in study["fits"] if f["component"] == name and f["language"] == lang), None)


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
    if "inverse" in plan:
        blocks.append(Text(inverse_sentence(plan, where)))
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
        words = f"{local['measure']} changes by {local['gain']:+.2f} ({low:+.2f} to {high:+.2f}) by the pairs"
        if "pooled_law" in plan:
            law = plan["pooled_law"]
            words += f", by {law['gain']:+.2f} ({law['gain_ci95'][0]:+.2f} to {law['gain_ci95'][1]:+.2f}) by the law over all models"
            if not law["base_tokens_known"]:
                words += f" (the {where} tokens of the base are undisclosed and count as none, as in the table that the law was fitted to)"
        blocks.append(Text(words + "."))
    blocks += [Text(w, "warning") for w in plan["warnings"]]
    columns = ("measure", "before", "change", "95% low", "95% high", "after", "form", "error on unseen families")
    for title, wanted in (
        (f"{where} tasks", plan["language"]),
        (f"Side cost: {language(study['reference'])} tasks", study["reference"]),
        ("Components", None),
    ):
        chosen = [m for m in plan["measures"] if m["language"] == wanted]
        table = [
            (_whole(m["measure"]), m["before"], m["gain"], *m["gain_ci95"], m["after"], _whole(m["form"]), m["lofo_rmse"])
            for m in chosen
        ]
        if table:
            formats = dict.fromkeys(columns[2:5], "+.3f") | dict.fromkeys(("before", "after", columns[-1]), ".3f")
            blocks.append(Table(columns, table, f"{title}; {NOTE}.", formats=formats))
    beyond = [f"{m['measure']}: {', '.join(m['extrapolates'])}" for m in plan["measures"] if m["extrapolates"]]
    if beyond:
        blocks.append(Text("Extrapolation: " + "; ".join(beyond) + ".", "warning"))
    return blocks


def inverse_sentence(plan: Json, where: str) -> str:
    """What `--target` found."""
    found = plan["inverse"]
    tokens, (few, many) = found["tokens"], found["tokens_ci95"]

    def told(value):
        return "more than 100 trillion" if value is None else f"{value / 1e9:,.1f} billion"

    words = (f"{found['target']} = {found['value']:g} (now {found['before']:.3f}) is predicted at {told(tokens)} added {where} tokens; "
             f"within the 95% prediction interval from {told(few)} to {told(many)}.")  # fmt: skip
    if found["extrapolates"]:
        words += f" This is an extrapolation: the pairs added {found['seen'][0] / 1e9:.0f} to {found['seen'][1] / 1e9:.0f} billion."
    return words + f" {NOTE.capitalize()}."


def _verdicts(study: Json, plots: dict[str, Figure]) -> list[Block]:
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
               f"families drawn whole. The two need not agree, since pooled models differ in all else. {NOTE.capitalize()}.")  # fmt: skip
    return [*_shown(plots, "transfer"), Table(columns, rows, caption, formats=formats), Details("Reasons", [reasons])]


def _fits(study: Json, plots: dict[str, Figure]) -> list[Block]:
    if not study["fits"]:
        return []
    columns = ("component", "compute", "n", "families", "r", "R²", "slope a decade", "95% by family", "with token intervals", "95% naive",
               "error, unseen families", "sd")  # fmt: skip
    rows = []
    for f in study["fits"]:
        spans = [_span(f[key]) for key in ("ci95_family", "ci95_family_and_tokens", "ci95_naive")]
        rows.append((f["component"], language(f["language"]), f["n"], f["families"], f["r"], f["r2"], f["slope_per_decade"], *spans,
                     f["lofo_rmse"], f["sd"]))  # fmt: skip
    formats = {"r": "+.2f", "R²": ".3f", "slope a decade": "+.2f", "error, unseen families": ".2f", "sd": ".2f"}
    caption = (f"Compute is 6·N·D with D the tokens of that language, {'active' if study['active_params'] else 'total'} parameters for mixtures of "
               "experts. Error on unseen families: each family predicted by the others; sd is what one errs by without a law. "
               f"{NOTE.capitalize()}.")  # fmt: skip
    blocks: list[Block] = [*_shown(plots, "general", "local")]
    why = _wider(study)
    if why:
        blocks.append(Text(why))
    blocks.append(Table(columns, rows, caption, formats=formats))
    return [*blocks, *_shown(plots, "general_other", "local_other")]


def _span(interval) -> str:
    return "–" if interval is None else _whole(f"{interval[0]:.2f} to {interval[1]:.2f}")


def _whole(text: str) -> str:
    """Text that no table cell breaks."""
    return text.replace(" ", "\u00a0")


def _wider(study: Json) -> str:
    fit = _fit(study, study["local_component"], study["language"])
    if fit is None or fit["ci95_family"] is None:
        return "There are fewer than three families, so that only naive intervals can be given; they are too narrow."
    wide, naive = (fit[k][1] - fit[k][0] for k in ("ci95_family", "ci95_naive"))
    counts: dict[str, int] = {}
    for family in study["families"].values():
        counts[family] = counts.get(family, 0) + 1
    most = max(counts, key=counts.get)
    words = "wider than" if wide > naive else "not wider than"
    return (
        f"Intervals by family are {words} naive ones ({wide:.2f} against {naive:.2f} for {study['local_component']}): a naive bootstrap takes every "
        f"model for an independent draw, but {counts[most]} of the {study['models']} models are of the family {most} and share its weights "
        "and data, so that there is less evidence than there are models. Whole families are drawn instead."
    )


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
    return [
        Figure(
            bars(list(chart), {"mean change": list(chart.values())}, x=f"continual minus base, score units ({NOTE})"),
            "Mean change by task.",
        ),
        Table(columns, rows, f"Intervals draw families whole. {NOTE.capitalize()}.", formats=formats),
        Details(f"The {len(study['pairs']['models'])} pairs", [made]),
    ]


def _components(study: Json, plots: dict[str, Figure]) -> list[Block]:
    kept = study["kept"]
    told = f"{', '.join(kept)} {'is' if len(kept) == 1 else 'are'}" if kept else "No component is"
    rest = [f"PC{k}" for k in range(1, 4) if f"PC{k}" not in kept and f"PC{k}" in study["loadings"]]
    words = f"{told} clearly more than noise by Horn's parallel analysis"
    words += (
        f"; {', '.join(rest)} {'is' if len(rest) == 1 else 'are'} not, and should not be given a meaning."
        if rest
        else "."
    )
    axes = Table(
        ("component", "variance", "95% bootstrap", "|cos| to the full axis, 2.5%"),
        [
            (a["component"], study["explained_variance_ratio"][i], _span(a["ratio_ci95"]), a["cosine_p2_5"])
            for i, a in enumerate(study["axes"])
        ],
        "Models drawn with replacement.",
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
        (f"iterative PCA, {k} component{'s' if k != '1' else ''}" if k.isdigit() else "column means", v)
        for k, v in cells["rmse"].items()
    ]
    return [Text(words), *_shown(plots, "scree", "biplot"), axes, Details("Loadings", [loadings]),
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
        + " A controlled sweep of own small models, which differ in nothing but the budget, can confirm it: their tables pass "
        "through the same command.",
        "Token budgets are often estimates (token_ledger.csv tells which); their intervals are drawn from triangular distributions, "
        "which is an assumption.",
    ]
    return [*(Text(w, "warning") for w in study["warnings"]), *map(Text, standing)]


def _shown(plots: dict[str, Figure], *names: str) -> list[Block]:
    return [plots[n] for n in names if n in plots]


def _plots(study: Json) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    clusters = study["clusters"]
    figures["correlations"] = Figure(
        tree_heatmap(
            clusters["order"], study["correlations"], clusters["linkage"], tasks=list(study["tasks"]), note=NOTE
        ),
        "Correlations between tasks over models, in the order of their average-linkage tree.",
    )
    eigenvalues = study["eigenvalues"][:8]
    at = list(range(1, len(eigenvalues) + 1))
    noise = study["parallel_analysis"][: len(at)]  # one fewer where there are no more models than tasks
    scree = [Series("eigenvalue", at, eigenvalues), Series("noise, 95%", at[: len(noise)], noise)]
    figures["scree"] = Figure(
        lines(scree, x=f"component ({NOTE})", y="eigenvalue", markers=True, height=2.6),
        "Eigenvalues against parallel analysis: above the line is more than noise.",
    )
    if "PC2" in study["scores"]:
        figures["biplot"] = Figure(
            _biplot(study),
            "Models (points) and loadings (arrows, scaled to fit). Names that would cover others are left out.",
        )
    general, local, here, there = (
        study["general_component"],
        study["local_component"],
        study["language"],
        study["reference"],
    )
    for key, name, lang in (
        ("general", general, there),
        ("local", local, here),
        ("general_other", general, here),
        ("local_other", local, there),
    ):
        fit = _fit(study, name, lang)
        if fit:
            caption = f"{name} against {language(lang)} compute: R² {fit['r2']:.2f}; the band is the 95% prediction interval for a new model."
            figures[key] = Figure(_law(study, fit), caption)
    if any(v["paired"] for v in study["verdicts"].values()):
        figures["transfer"] = Figure(_transfer(study), "Each task by how it follows the reference language's compute over all models (pooled) and what adding "
                                     "local text did to the same models (paired).")  # fmt: skip
    return figures


def _groups(study: Json, xs: dict[str, float], ys: dict[str, float]) -> list[Points]:
    continual = {m for m, *_ in study["pairs"]["models"]}
    found = []
    for label, inside in (("continual, base in the table", True), ("others", False)):
        models = [m for m in xs if (m in continual) == inside and xs[m] is not None and ys[m] is not None]
        found.append(
            Points(label, [xs[m] for m in models], [ys[m] for m in models], [study["labels"][m] for m in models])
        )
    return [p for p in found if len(p.x)]


def _biplot(study: Json) -> str:
    arrows = {t: (study["loadings"]["PC1"][t], study["loadings"]["PC2"][t]) for t in study["tasks"]}
    ratio = study["explained_variance_ratio"]
    points = _groups(study, study["scores"]["PC1"], study["scores"]["PC2"])
    return scatter(
        points, x=f"PC1 ({ratio[0]:.0%})", y=f"PC2 ({ratio[1]:.0%})", arrows=arrows, cross=(0, 0), note=NOTE, height=5.4
    )


def _law(study: Json, fit: Json) -> str:
    curve = fit["curve"]
    points = _groups(study, study["log10_compute"][fit["language"]], study["scores"][fit["component"]])
    band = Band(curve["x"], curve["y"], curve["low"], curve["high"])
    return scatter(
        points,
        x=f"log10 of {language(fit['language'])} compute (FLOPs)",
        y=fit["component"],
        band=band,
        note=NOTE,
        height=3.6,
    )


def _transfer(study: Json) -> str:
    groups = []
    for verdict in VERDICTS:
        chosen = [(t, v["pooled_r"].get(study["reference"]), v["paired"]["mean"]) for t, v in study["verdicts"].items()
                  if v["verdict"] == verdict and v["paired"] and v["pooled_r"].get(study["reference"]) is not None]  # fmt: skip
        if chosen:
            names, xs, ys = zip(*chosen)
            groups.append(Points(verdict, xs, ys, names))
    if not groups:
        return scatter([Points("", [], [], [])], x="", y="", note="no pooled evidence")
    return scatter(
        groups,
        x=f"pooled: r with {language(study['reference'])} compute",
        y="paired: mean gain",
        cross=(None, 0),
        note=NOTE,
        height=4.4,
    )


def _write_svg(path: pathlib.Path, svg: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = re.sub(r"var\(--\w+,(#[0-9a-f]+)\)", r"\1", svg).replace(
        "<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1
    )
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(alone, encoding="utf-8")
    temporary.replace(path)
