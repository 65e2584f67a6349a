"""The page of a best-of-N measurement: curves of reward models over what choosing costs."""

import pathlib
from typing import Any

from kanana_jax.report.page import Figure, Page, Section, Table, Text, write
from kanana_jax.report.plots import Series, lines


def write_page(result: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
    """Writes the page of a result of `kanana best-of-n`."""
    curves = result["curves"]
    series = [
        Series(
            name,
            [p["kl"] for p in points],
            [p["score"] for p in points],
            [p["score_ci95"][0] for p in points] if result["prompts"] > 1 else None,
            [p["score_ci95"][1] for p in points] if result["prompts"] > 1 else None,
        )
        for name, points in curves.items()
    ]
    figure = lines(
        series, x="KL to the policy, at most (nats): log n − (n − 1)/n", y="score by the judge", markers=True
    )
    rows = [
        (name, p["n"], p["kl"], p["score"], p["score_ci95"][0], p["score_ci95"][1], p["chosen"])
        for name, points in curves.items()
        for p in points
    ]
    columns = ("chosen by", "n", "KL, at most", "score", "from", "to", "own score of the chosen")
    formats = dict.fromkeys(("KL, at most", "score", "from", "to", "own score of the chosen"), ".3f")
    told = f"{result['prompts']:,} prompts; choices are judged by '{result['judge']}'."
    ahead = [
        (name, a["difference"], None if a["error"] is None else 1.96 * a["error"])
        for name, a in result["ahead"].items()
    ]
    compared = [
        Text(f"The judge scores the choices of '{result['best']}' highest."),
        Table(("than", "higher by", "± (95%, paired)"), ahead, formats={"higher by": ".3f", "± (95%, paired)": ".3f"}),
    ]
    page = Page(
        f"Best of N of {result['policy']}",
        told,
        [
            Section("Curves", [Figure(figure, "Bands: 95% intervals of the mean over prompts. Higher is better.")]),
            Section("Figures", [Table(columns, rows, formats=formats)]),
            *([Section("Which reward model", compared)] if ahead else []),
        ],
    )
    return write(page, path)
