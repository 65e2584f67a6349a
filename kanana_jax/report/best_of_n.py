"""Pages and figures for best-of-N results: curves of reward models over the KL cost of choosing."""

import pathlib
from typing import Any

from kanana_jax.report.page import Block, Figure, Page, Section, Table, Text, write
from kanana_jax.report.plots import Series, lines

Json = dict[str, Any]
_CEILING = "judge"  # label of the curve where the judge itself chooses: an upper bound


def write_page(result: Json, path: pathlib.Path) -> pathlib.Path:
    """Writes the page of a result of `kanana best-of-n`."""
    ahead = compared(result)
    page = Page(
        f"Best of N of {result['policy']}",
        told(result),
        [
            Section("Curves", [curves(result)]),
            Section("Figures", [table(result)]),
            *([Section("Which reward model", ahead)] if ahead else []),
        ],
    )
    return write(page, path)


def told(result: Json) -> str:
    """A sentence on the number of prompts and answers and on the judge."""
    judge = "the verifier that each prompt names" if result["judge"] == "record" else f"'{result['judge']}'"
    return f"{result['prompts']:,} prompts; choices are judged by {judge}."


def _drawn(result: Json) -> dict[str, list[Json]]:
    """Chooser → its curve; includes the judge's own curve, unless the judge is one of the choosers."""
    found = dict(result["curves"])
    ceiling = result.get("ceiling")
    if ceiling and not any([p["score"] for p in points] == [p["score"] for p in ceiling] for points in found.values()):
        found[_CEILING] = ceiling
    return found


def curves(result: Json) -> Figure:
    """The judge's score of the chosen answers over the KL divergence of best-of-N, one line per chooser."""
    several = result["prompts"] > 1
    series = [
        Series(
            name,
            [p["kl"] for p in points],
            [p["score"] for p in points],
            [p["score_ci95"][0] for p in points] if several and name != _CEILING else None,
            [p["score_ci95"][1] for p in points] if several and name != _CEILING else None,
            faint=name == _CEILING,
        )
        for name, points in _drawn(result).items()
    ]
    figure = lines(
        series, x="KL to the policy, at most (nats): log n − (n − 1)/n", y="score by the judge", markers=True
    )
    caption = "Bands: 95% intervals of the mean over prompts. Higher is better."
    if _CEILING in _drawn(result):
        caption += " Pale: the judge chooses itself, the most that any reward model could reach."
    return Figure(figure, caption)


def table(result: Json) -> Table:
    """The curves as a table."""
    rows = [
        (name, p["n"], p["kl"], p["score"], p["score_ci95"][0], p["score_ci95"][1], p["chosen"])
        for name, points in _drawn(result).items()
        for p in points
    ]
    columns = ("chosen by", "n", "KL, at most", "score", "from", "to", "own score of the chosen")
    return Table(columns, rows, formats=dict.fromkeys(("KL, at most", *columns[3:]), ".3f"))


def compared(result: Json) -> list[Block]:
    """A comparison of several choosers; empty if there is only one."""
    ahead = [
        (name, a["difference"], None if a["error"] is None else 1.96 * a["error"])
        for name, a in result["ahead"].items()
    ]
    if not ahead:
        return []
    columns = ("than", "higher by", "± (95%, paired)")
    return [
        Text(f"The judge scores the choices of '{result['best']}' highest."),
        Table(columns, ahead, formats=dict.fromkeys(columns[1:], ".3f")),
    ]
