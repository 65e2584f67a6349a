"""The figures of a study."""

import pathlib
import re

from kanana_jax.files import whole_file
from kanana_jax.report.observatory.sentences import NOTE, VERDICTS, Json, fit_of, language
from kanana_jax.report.page import Figure
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.scatter import Band, Points, scatter, tree_heatmap


def draw(study: Json) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    clusters = study["clusters"]
    figures["correlations"] = Figure(
        tree_heatmap(
            clusters["order"], study["correlations"], clusters["linkage"], tasks=list(study["tasks"]), note=NOTE
        ),
        "Correlations between tasks over models, in the order of their average-linkage tree.",
    )
    if study.get("plan", {}).get("decision", {}).get("curve"):
        figures["plan"] = Figure(_plan(study), f"The gain of {study['plan']['decision']['measure']} against added tokens: the pairs, the line that predicts this "
                                 "base, and its 95% interval for one new model.")  # fmt: skip
    eigenvalues = study["eigenvalues"][:8]
    at = list(range(1, len(eigenvalues) + 1))
    noise = study["parallel_analysis"][: len(at)]  # one fewer where there are no more models than tasks
    own = study["noise_thresholds"][: len(at)]
    scree = [Series("eigenvalue", at, eigenvalues), Series("noise, 95%", at[: len(noise)], noise),
             Series("noise of families about PC1, 99%", at[: len(own)], own)]  # fmt: skip
    figures["scree"] = Figure(
        lines(scree, x=f"component ({NOTE})", y="eigenvalue", markers=True, height=2.6),
        "Eigenvalues against noise: Horn's parallel analysis, of independent models and complete tables, and that of these families and holes, which "
        "decides.",
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
        fit = fit_of(study, name, lang)
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


def _plan(study: Json) -> str:
    plan, decision = study["plan"], study["plan"]["decision"]
    curve, asked = decision["curve"], decision["choices"][0]
    at = next(m for m in plan["measures"] if m["measure"] == decision["measure"])
    names, tokens, gains = zip(*decision["pairs"])
    points = [Points("pairs", tokens, gains, [study["labels"][n] for n in names]),
              Points("this plan", [asked["tokens"]], [at["gain"]], [study["labels"][asked["model"]]])]  # fmt: skip
    band = Band(curve["tokens"], curve["gain"], curve["low"], curve["high"])
    where = language(plan["language"])
    return scatter(points, x=f"added {where} tokens", y=f"gain of {decision['measure']}", band=band, note=NOTE, height=3.0, log_x=True)


def _law(study: Json, fit: Json) -> str:
    curve, params = fit["curve"], _size(study)
    tokens = lambda compute: None if compute is None else 10**compute / (6 * params)  # noqa: E731
    points = _groups(study, {m: tokens(c) for m, c in study["log10_compute"][fit["language"]].items()}, study["scores"][fit["component"]])
    band = Band([tokens(x) for x in curve["x"]], curve["y"], curve["low"], curve["high"])
    return scatter(
        points,
        x=f"{language(fit['language'])} tokens on which a model of {params / 1e9:.2g}B parameters takes this compute",
        log_x=True,
        y=fit["component"],
        band=band,
        note=NOTE,
        height=3.6,
    )


def _size(study: Json) -> float:
    """Parameters of the model for which compute is told in tokens: the plan's, else the median of the table."""
    known = sorted(n for n in study["params"].values() if n)
    return study["plan"]["params"] if "plan" in study else known[len(known) // 2]


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


def write_svg(path: pathlib.Path, svg: str) -> None:
    alone = re.sub(r"var\(--\w+,(#[0-9a-f]+)\)", r"\1", svg).replace(
        "<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1
    )
    with whole_file(path) as temporary:
        temporary.write_text(alone, encoding="utf-8")
