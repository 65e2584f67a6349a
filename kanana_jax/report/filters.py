"""The report of a filter job: documents dropped, by which rule, with examples."""

import math
import pathlib
from typing import Any

from kanana_jax.files import load_json
from kanana_jax.report.page import Block, Details, Excerpt, Figure, KeyValues, Page, Section, Table, Text, write
from kanana_jax.report.plots import bars, heatmap, histogram

Json = dict[str, Any]
DRAWN = 10  # rules in the chart; the table has all


def write_filter_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `DIR/report.html` from `report.json`, `examples.json` and `cost.json`.

    Raises:
      UserError: the job has not finished.
    """
    report = load_json(folder / "report.json")
    examples = load_json(folder / "examples.json")
    cost = load_json(folder / "cost.json")
    share = report["kept"] / report["documents"] if report["documents"] else 0.0
    lead = f"{report['kept']:,} of {report['documents']:,} documents kept ({100 * share:.1f}%)."
    page = Page(
        "Filter report",
        f"{lead} Config {report['config_hash'][:12]}.",
        [
            Section("In short", [*_summary(report, cost), *_curated(share)]),
            Section("By source", _sources(report)),
            Section("By rule", _rules(report)),
            Section("Rules that are broken together", _together(report)),
            *([Section("Evaluation sets", _evaluation(report))] if report["contamination"] else []),
            Section("Signals and their thresholds", _signals(report, examples)),
            Section("Examples", _examples(examples["examples"])),
        ],
    )
    return write(page, folder / "report.html")


def _summary(report: Json, cost: Json) -> list[Block]:
    megabytes = cost["bytes"] / 1e6
    return [
        KeyValues(
            {
                "documents": report["documents"],
                "kept": report["kept"],
                "dropped": report["dropped"],
                **({"judged by no filter": report["unjudged"]} if report.get("unjudged") else {}),
                "broken lines": report["broken_lines"],
                **{f"passed over: {reason}": n for reason, n in report.get("skipped", {}).items()},
                "text": f"{megabytes:,.1f} MB",
                "MB/s of one core": round(megabytes / max(cost["cpu_seconds"], 1e-9), 2),
            }
        )
    ]


def _curated(share: float) -> list[Block]:
    """A warning if a large share is dropped: thresholds for web pages do not suit curated text."""
    if share >= 0.7:
        return []
    hint = (
        "Filters for web pages drop much of statutes, tables, dialogue and short texts. Leave them out for curated text, "
        "or fit thresholds to it ('kanana thresholds')."
    )
    return [Text(hint, "warning")]


def _sources(report: Json) -> list[Block]:
    names = list(report["by_source"])
    found = report["by_source"].values()
    counts = {"kept": [v["kept"] for v in found], "dropped": [v["dropped"] for v in found]}
    rows = [
        (name, v["documents"], v["kept"], v["dropped"], 100 * v["kept"] / max(v["documents"], 1))
        for name, v in report["by_source"].items()
    ]
    return [
        Figure(bars(names, counts, x="documents", stacked=True), "Documents by source."),
        Table(("source", "documents", "kept", "dropped", "kept %"), rows, formats={"kept %": ".1f"}),
    ]


def _rules(report: Json) -> list[Block]:
    if not report["by_rule"]:
        return [Text("No rule dropped a document.")]
    order = sorted(report["by_rule"].items(), key=lambda item: -item[1]["any"])
    names = [name for name, _ in order]
    counts = {key: [numbers[key] for _, numbers in order[:DRAWN]] for key in ("any", "only")}
    total = report["documents"] or 1
    most = f"; the {DRAWN} rules that are broken most" if len(names) > DRAWN else ""
    rows = [(name, n["any"], 100 * n["any"] / total, n["first"], n["only"]) for name, n in order]
    return [
        Figure(bars(names[:DRAWN], counts, x="documents"), f"Documents that break a rule, and that break no other{most}."),
        Table(("rule", "any", "% of all", "first", "only"), rows, "The column 'first' sums to what was dropped.",
              formats={"% of all": ".2f"}),
    ]  # fmt: skip


def _evaluation(report: Json) -> list[Block]:
    rows = sorted(report["contamination"].items(), key=lambda item: -item[1])
    return [Table(("set", "documents"), rows, "Documents that share an n-gram with an evaluation set.")]


def _together(report: Json) -> list[Block]:
    order = sorted(report["by_rule"].items(), key=lambda item: -item[1]["any"])
    names = [name for name, _ in order[:16]]
    if len(names) < 2:
        return []
    pairs = {frozenset((a, b)): n for a, b, n in report["together"]}
    matrix = [
        [pairs.get(frozenset((a, b)), 0) / report["by_rule"][a]["any"] if a != b else math.nan for b in names]
        for a in names
    ]
    caption = "Of the documents that break the rule of the row, the share that also breaks the rule of the column."
    return [Figure(heatmap(names, names, matrix, low=0, high=1), caption)]


def _signals(report: Json, examples: Json) -> list[Block]:
    names, sample = list(examples["names"]), [row for _, row in examples["sample"]]
    if not sample:
        return []
    marks: dict[str, dict[str, float]] = {}
    for lang, rules in report["rules"].items():
        for rule in rules.values():
            for end in ("min", "max"):
                if rule[end] is not None and rule["signal"] in names:
                    marks.setdefault(rule["signal"], {})[f"{end} {lang}"] = rule[end]
    blocks: list[Block] = [Text(f"Of a sample of {len(sample):,} documents, selected by a hash of their ids.")]
    for signal, ends in marks.items():
        values = [value for row in sample if math.isfinite(value := row[names.index(signal)])]
        if not values:
            continue
        # Clip the axis, so that one extreme document or a far bound does not flatten the rest.
        most = sorted(values)[int(0.995 * (len(values) - 1))]
        near = {name: value for name, value in ends.items() if value <= 4 * most or most <= 0}
        bound = max([most, *near.values()])
        shown = [min(value, 1.05 * bound) for value in values]
        bounds = ", ".join(f"{name} {value:g}" for name, value in ends.items())
        blocks.append(
            Figure(histogram(shown, x=signal, y="documents", marks=near, height=1.9), f"Thresholds: {bounds}.")
        )
    return blocks


def _examples(examples: dict[str, list]) -> list[Block]:
    blocks: list[Block] = []
    for rule in sorted(examples):
        shown = [
            Excerpt(x["text"], [tuple(span) for span in x["spans"]], f"{x['id']}: {', '.join(x['rules']) or 'kept'}")
            for x in examples[rule]
        ]
        blocks.append(Details(f"dropped by {rule}" if rule else "kept", shown))
    return blocks
