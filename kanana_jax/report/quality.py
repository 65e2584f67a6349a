"""The report of `kanana quality train`: rounds, their curves, and documents on either side of the threshold."""

import pathlib
from typing import Any

from kanana_jax.files import load_json
from kanana_jax.report.page import Block, Code, Details, Excerpt, Figure, Page, Section, Table, Text, write
from kanana_jax.report.plots import Series, bars, lines

Json = dict[str, Any]


def write_quality_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `DIR/report.html` from `report.json`.

    Raises:
      UserError: no round has finished.
    """
    report = load_json(folder / "report.json")
    rounds = report["rounds"]
    last = rounds[-1]
    sections = [Section("Rounds", _rounds(rounds)), Section("Precision and recall", _curves(rounds))]
    if "shown" in report:
        sections.append(Section("Documents", _documents(report["shown"], last["threshold"])))
    sections.append(Section("Use", _use(last)))
    lead = (
        f"{len(rounds)} round{'s' if len(rounds) > 1 else ''}; the last has average precision "
        f"{last['average_precision']} on {last['evaluation']['documents']} documents that no round was trained on."
    )
    return write(Page("Quality classifier", lead, sections), folder / "report.html")


def _rounds(rounds: list[Json]) -> list[Block]:
    names = [f"round {i}" for i in range(len(rounds))]
    balance = {
        "good": [r["training"]["good"] for r in rounds],
        "other": [r["training"]["documents"] - r["training"]["good"] for r in rounds],
    }
    columns = ["round", "trained on", "good", "AP", "best F1", "precision", "recall", "threshold"]
    keys = ["average_precision", "best_f1", "precision", "recall", "threshold"]
    rows = [[i, r["training"]["documents"], r["training"]["good"], *(r[k] for k in keys)] for i, r in enumerate(rounds)]
    if "pool_kept" in rounds[0]:
        columns += ["pool kept %", "asked", "found"]
        for row, r in zip(rows, rounds):
            row += [100 * r["pool_kept"], r["asked"], r["found"]]
    caption = (
        "AP: average precision on the evaluation documents "
        f"({rounds[0]['evaluation']['good']} of {rounds[0]['evaluation']['documents']} good); threshold: where their F1 is "
        "best. Asked: labels asked for among the best-scored; found: good ones among these, which the next round adds."
    )
    return [
        Figure(bars(names, balance, x="training documents", stacked=True), "Class balance."),
        Table(columns, rows, caption, formats={"pool kept %": ".2f"}),
    ]


def _curves(rounds: list[Json]) -> list[Block]:
    series = [Series(f"round {i}", r["curve"]["recall"], r["curve"]["precision"]) for i, r in enumerate(rounds)]
    return [Figure(lines(series, x="recall", y="precision"), "On the evaluation documents.")]


def _documents(shown: Json, threshold: float) -> list[Block]:
    blocks: list[Block] = [Text(f"Drawn from the pool by a hash of their ids; threshold {threshold:.4f}.")]
    for side in ("kept", "dropped"):
        found = [Excerpt(x["text"], (), f"{x['id']} ({x['source']}): {x['score']}") for x in shown[side]]
        blocks.append(Details(f"{side} ({len(found)})", found))
    return blocks


def _use(last: Json) -> list[Block]:
    model = last["model"]
    return [
        Code(
            f"c.filters.LANG.quality = dict(NAME=dict(path={model['path']!r}, text={model['text']!r}, "
            f"max_characters={model['max_characters']},\n    sha256={model['sha256']!r}))\n"
            f"c.filters.LANG.rules.NAME = dict(signal='quality.NAME', min={last['threshold']:.6g})"
        )
    ]
