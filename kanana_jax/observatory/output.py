"""A study's results as .csv files, in which every row states its kind of evidence."""

import pathlib
from typing import Any

import pandas as pd

from kanana_jax.files import whole_file
from kanana_jax.observatory import DISCLAIMER, budgets
from kanana_jax.observatory.tables import Tables

Json = dict[str, Any]


def write_csvs(tables: Tables, result: Json, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the study's .csv files, each atomically, and returns their paths.

    Raises:
      UserError: the folder cannot be written.
    """
    frames = {
        "correlations": pd.DataFrame(result["correlations"]).rename_axis("task").reset_index(),
        "loadings": pd.DataFrame(result["loadings"]).rename_axis("task").reset_index(),
        "component_scores": pd.DataFrame(result["scores"]).rename_axis("model").reset_index(),
        "fits": pd.DataFrame([_flat(f) for f in result["fits"] + result["task_fits"]]),
        "pairs": pd.DataFrame([{"measure": k, **_flat(v)} for k, v in result["pairs"]["summary"].items()]),
        "verdicts": pd.DataFrame([_verdict(t, v) for t, v in result["verdicts"].items()]),
        "token_ledger": budgets.ledger(tables),
        "provenance": _provenance(tables),
        "downstream": pd.DataFrame(
            [{k: v for k, v in r.items() if k != "weights"} for r in result["downstream"]["tasks"]]
        ),
    }
    planned = result.get("plan", {}).get("measures", ())
    frames["plan"] = pd.DataFrame([{**_flat(r), "extrapolates": "; ".join(r["extrapolates"])} for r in planned])
    written = []
    for name, frame in frames.items():
        if not len(frame):
            (folder / f"{name}.csv").unlink(missing_ok=True)  # left by an earlier study, which this one replaces
        else:
            written.append(_write(folder / f"{name}.csv", frame.assign(evidence=DISCLAIMER)))
    return written


def _provenance(tables: Tables) -> pd.DataFrame:
    """The source of each score, with its standard error if known."""
    found = tables.sources.rename_axis("model").reset_index().melt("model", var_name="task", value_name="source")
    if tables.errors.notna().to_numpy().any():
        found["stderr"] = tables.errors.melt()["value"]
    return found


def _flat(row: Json) -> Json:
    """A flat row: intervals become two columns, curves are left out."""
    flat = {}
    for key, value in row.items():
        if key in ("curve", "extrapolates"):
            continue
        if isinstance(value, list) or key.startswith("ci95") or key.endswith("ci95"):
            low, high = value or (None, None)
            flat[f"{key}_low"], flat[f"{key}_high"] = low, high
        else:
            flat[key] = value
    return flat


def _verdict(task: str, found: Json) -> Json:
    paired = found["paired"] or {}
    return {"task": task, "language": found["language"], "verdict": found["verdict"],
            **{f"pooled_r_{lang}": r for lang, r in found["pooled_r"].items()},
            "paired_mean": paired.get("mean"), "paired_up": paired.get("up"), "pairs": paired.get("n"),
            "reasons": " ".join(found["reasons"])}  # fmt: skip


def _inert(cell: Any) -> Any:
    """Prefixes text that a spreadsheet would run as a formula with '."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def _write(path: pathlib.Path, frame: pd.DataFrame) -> pathlib.Path:
    frame = frame.rename(columns=_inert).map(_inert)
    with whole_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    return path
