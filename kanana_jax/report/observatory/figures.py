"""The figures of a study."""

import pathlib
import re
from collections.abc import Callable

from kanana_jax.files import whole_file
from kanana_jax.report.observatory.sentences import NOTE, VERDICTS, Json, fit_of, language
from kanana_jax.report.page import Figure
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.scatter import Band, Points, scatter, tree_heatmap
from kanana_jax.report.svg import NARROW, WIDTH


def _figure(drawn: Callable[[float], str], caption: str) -> Figure:
    """A plot in two widths, for a page and for phones."""
    return Figure(drawn(WIDTH), caption, drawn(NARROW))


def draw(study: Json) -> dict[str, Figure]:
    """Name → plot; plots of results that the study lacks are left out."""
    figures: dict[str, Figure] = {}
    clusters = study["clusters"]
    figures["correlations"] = _figure(
        lambda width: tree_heatmap(
            clusters["order"],
            study["correlations"],
            clusters["linkage"],
            tasks=list(study["tasks"]),
            note=NOTE,
            width=width,
        ),
        "Correlations between tasks over models, in the order of their average-linkage tree.",
    )
    if study.get("plan", {}).get("decision", {}).get("curve"):
        figures["plan"] = _figure(lambda width: _plan(study, width), f"The gain of {study['plan']['decision']['measure']} against added tokens: the pairs, the line that predicts this "
                                 "base, and its 95% interval for one new model.")  # fmt: skip
    eigenvalues = study["eigenvalues"][:8]
    at = list(range(1, len(eigenvalues) + 1))
    noise = study["parallel_analysis"][: len(at)]  # one component fewer if models do not outnumber tasks
    own = study["noise_thresholds"][: len(at)]
    scree = [Series("eigenvalue", at, eigenvalues), Series("noise, 95%", at[: len(noise)], noise),
             Series("noise of families, 99%", at[: len(own)], own)]  # fmt: skip
    figures["scree"] = _figure(
        lambda width: lines(scree, x=f"component ({NOTE})", y="eigenvalue", markers=True, height=2.6, width=width),
        "Eigenvalues against noise: Horn's parallel analysis, for independent models and complete tables, and noise with these families and missing "
        "cells, which decides.",
    )
    if "PC2" in study["scores"]:
        figures["biplot"] = _figure(
            lambda width: _biplot(study, width),
            "Models (points) and loadings (arrows, scaled to fit). Names that would cover others are left out; the next plot has all loadings.",
        )
        figures["loadings"] = _figure(lambda width: _loadings(study, width), "Loadings of the tasks on the first two components, by language.")
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
        fit = fit_of(study, name, lang)
        if fit:
            caption = f"{name} against {language(lang)} compute: R² {fit['r2']:.2f}; the band is the 95% prediction interval for a new model."
            figures[key] = _figure(lambda width, fit=fit: _law(study, fit, width), caption)
    if any(v["paired"] for v in study["verdicts"].values()):
        figures["transfer"] = _figure(lambda width: _transfer(study, width), "Each task by how it follows the reference language's compute over all models (pooled) and what adding "
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


def _loadings(study: Json, width: float) -> str:
    groups = []
    for lang in dict.fromkeys(t["language"] for t in study["tasks"].values()):
        names = [t for t, about in study["tasks"].items() if about["language"] == lang]
        xs, ys = ([study["loadings"][pc][t] for t in names] for pc in ("PC1", "PC2"))
        groups.append(Points(f"{language(lang)} tasks", xs, ys, names))
    return scatter(groups, x="loading on PC1", y="loading on PC2", cross=(0, 0), note=NOTE, height=4.6, width=width)


def _biplot(study: Json, width: float) -> str:
    arrows = {t: (study["loadings"]["PC1"][t], study["loadings"]["PC2"][t]) for t in study["tasks"]}
    ratio = study["explained_variance_ratio"]
    points = _groups(study, study["scores"]["PC1"], study["scores"]["PC2"])
    x, y = (f"PC{k + 1} ({ratio[k]:.0%})" for k in (0, 1))
    return scatter(points, x=x, y=y, arrows=arrows, cross=(0, 0), note=NOTE, height=5.4, width=width)


def _plan(study: Json, width: float) -> str:
    plan, decision = study["plan"], study["plan"]["decision"]
    curve, asked = decision["curve"], decision["choices"][0]
    at = next(m for m in plan["measures"] if m["measure"] == decision["measure"])
    names, tokens, gains = zip(*decision["pairs"])
    points = [Points("pairs", tokens, gains, [study["labels"][n] for n in names]),
              Points("this plan", [asked["tokens"]], [at["gain"]], [study["labels"][asked["model"]]])]  # fmt: skip
    band = Band(curve["tokens"], curve["gain"], curve["low"], curve["high"])
    where = language(plan["language"])
    y = f"gain of {decision['measure']}"
    return scatter(points, x=f"added {where} tokens", y=y, band=band, note=NOTE, height=3.0, log_x=True, width=width)


def _law(study: Json, fit: Json, width: float) -> str:
    curve, params = fit["curve"], _size(study)
    tokens = lambda compute: 10**compute / (6 * params)  # noqa: E731
    known = {m: tokens(c) for m, c in study["log10_compute"][fit["language"]].items() if c is not None}
    points = _groups(study, known, study["scores"][fit["component"]])
    band = Band([tokens(x) for x in curve["x"]], curve["y"], curve["low"], curve["high"])
    return scatter(
        points,
        x=f"{language(fit['language'])} tokens (compute as of {params / 1e9:.2g}B parameters)",
        log_x=True,
        y=fit["component"],
        band=band,
        note=NOTE,
        height=3.6,
        width=width,
    )


def _size(study: Json) -> float:
    """Parameters used to convert compute to tokens on the axis: the plan's, or else the median of the table."""
    known = sorted(n for n in study["params"].values() if n)
    return study["plan"]["params"] if "plan" in study else known[len(known) // 2]


def _transfer(study: Json, width: float) -> str:
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
        width=width,
    )


def write_svg(path: pathlib.Path, svg: str) -> None:
    alone = re.sub(r"var\(--\w+,(#[0-9a-f]+)\)", r"\1", svg).replace(
        "<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1
    )
    with whole_file(path) as temporary:
        temporary.write_text(alone, encoding="utf-8")
