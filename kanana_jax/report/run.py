"""The report of a training workdir, from its files alone; kinds of stages hand in their chapters."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kanana_jax.files import load_json, read_json
from kanana_jax.report.page import (
    Block,
    Chapter,
    Code,
    Details,
    Figure,
    KeyValues,
    Page,
    Sample,
    Samples,
    Section,
    Table,
    Text,
    write,
)
from kanana_jax.report.plots import Series, bars, lines

Json = dict[str, Any]


def write_run_report(
    workdir: pathlib.Path, chapters: Sequence[Chapter] = (), results: Mapping[str, str] = MappingProxyType({})
) -> pathlib.Path:
    """Writes `DIR/report.html` for a finished, running or broken run.

    Args:
      chapters: of the kinds of stages.
      results: kind → the file in a stage's folder that says that it is finished; default `model/model.json`.

    Raises:
      UserError: there is no `config.json`, so it is not a workdir.
    """
    run = load_json(workdir / "config.json")
    names = list(run["config"]["stages"])
    stages = {name: _Stage(workdir / name, name, run["config"].get(name, {}), results) for name in names}
    begun = [s for s in stages.values() if s.steps]
    folders = {name: workdir / name for name in names}
    lead = "; ".join(f"{s.name}: {s.state}" for s in stages.values())
    page = Page(
        f"Run '{run['config'].get('name', workdir.name)}'",
        f"{lead}. {run['devices']}. Begun {run['started']}.",
        [
            Section("In short", _summary(begun)),
            Section("Models", _models(stages)),
            *(section for chapter in chapters for section in _optional(chapter.title, chapter.blocks(folders))),
            Section("Loss", _loss(begun)),
            *_optional("Held-out text", _bits(begun)),
            *_optional("Scores", _scores(begun)),
            *_optional("Tasks", _tasks(begun)),
            Section("Samples", _samples(stages)),
            Section("Data", _data(stages)),
            Section("Learning rate and gradient", _optimizer(begun)),
            Section("Throughput", _throughput(begun)),
            Section(
                "How to run this again",
                [
                    Code(run["command"]),
                    Table(
                        ("package", "version"),
                        [
                            *run["versions"].items(),
                            ("git revision", run["git_revision"] or "unknown"),
                            ("seed", str(run["seed"])),
                        ],
                    ),
                ],
            ),
            Section(
                "Config",
                [Details("Every value", [Code(json.dumps(run["config"], ensure_ascii=False, indent=1))])],
            ),
        ],
    )
    return write(page, workdir / "report.html")


def _optional(title: str, blocks: list[Block]) -> list[Section]:
    return [Section(title, blocks)] if blocks else []


class _Stage:
    """One stage's files; token counts continue from the stage before."""

    def __init__(self, folder: pathlib.Path, name: str, config: Json, results: Mapping[str, str]):
        self.name, self.config = name, config
        rows = _json_lines(folder / "metrics.jsonl")
        self.steps = [row for row in rows if "eval" not in row]
        self.evals = [row for row in rows if "eval" in row]
        self.card = read_json(folder / "model" / "model.json")
        self.data = read_json(folder / "data_report.json")
        self.samples = read_json(folder / "samples.json", list) or []
        self.samples_before = read_json(folder / "samples_before.json", list) or []
        train = config.get("train", {})
        total = -(-train["tokens"] // train["batch_tokens"]) if train.get("batch_tokens") else 0
        done = self.steps[-1]["step"] if self.steps else 0
        finished = (folder / results.get(config.get("kind", ""), "model/model.json")).is_file()
        self.state = "finished" if finished else f"step {done:,} of {total:,}" if done else "not started"


def _json_lines(path: pathlib.Path) -> list[Json]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # a line that is being written
            continue
    return rows


def _axis(stages: list[_Stage]) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens (millions) before each stage, and the boundaries to draw."""
    before, total = {}, 0.0
    for s in stages:
        before[s.name] = total
        total += s.steps[-1]["tokens"] / 1e6
    return before, dict(before) if len(before) > 1 else {}


def _curve(stages: list[_Stage], key: str, label: str = "", factor: float = 1.0) -> Series:
    before, _ = _axis(stages)
    points = [
        (before[s.name] + row["tokens"] / 1e6, row[key] * factor)
        for s in stages
        for row in s.steps
        if row.get(key) is not None
    ]
    return Series(label or key, [p[0] for p in points], [p[1] for p in points])


def _summary(stages: list[_Stage]) -> list[Block]:
    if not stages:
        return []
    last = stages[-1]
    items: dict[str, Any] = {}
    if last.card:
        items["parameters"] = last.card["parameters"]
    items["tokens seen"] = sum(s.steps[-1]["tokens"] for s in stages)
    for name, value in (last.evals[-1]["eval"].get("bits_per_byte", {}) if last.evals else {}).items():
        if name.startswith("lang/"):
            items[f"held-out bits per byte, {name.removeprefix('lang/')}"] = round(value, 3)
    score = last.evals[-1].get("score") if last.evals else None
    if score is not None and score["name"] != "bits_per_byte":
        items[f"{score['name'].replace('_', ' ')} ({score['better']} is better)"] = round(score["value"], 3)
    seconds = sum(r.get("step_s", 0.0) * (r["step"] - p["step"]) for s in stages for p, r in zip(s.steps, s.steps[1:]))
    items["time in steps"] = f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    return [KeyValues(items)]


def _models(stages: dict[str, _Stage]) -> list[Block]:
    rows = []
    for s in stages.values():
        if s.card:
            a, flops = s.card["architecture"], s.card["flops"]
            shape = f"{a['num_layers']} × {a['embed_dim']} / {a['mlp_dim']}"
            heads = f"{a['num_heads']} ({a['num_kv_heads']} KV)"
            ledger = (flops["train"], flops["teacher"], flops["calibration"])
            rows.append(
                (s.name, shape, heads, s.card["parameters"], s.card["tokens"], *ledger, _parent(s.card))
            )
    if not rows:
        return [Text("No stage is finished yet.")]
    columns = (
        "stage",
        "layers × width / MLP",
        "heads",
        "parameters",
        "tokens",
        "FLOPs",
        "teacher",
        "calibration",
        "from",
    )
    caption = "FLOPs are matrix products with causal attention, of this stage alone."
    return [Table(columns, rows, caption, formats=dict.fromkeys(("FLOPs", "teacher", "calibration"), ".3g"))]


def _parent(card: Json) -> str:
    """The stage that a model was made from, or its folder; `parent` is relative within a workdir."""
    parent = card["parent"] or "–"
    return pathlib.PurePath(parent).parts[-2] if parent.startswith("../") else parent


def _loss(stages: list[_Stage]) -> list:
    if not stages:
        return [Text("No step is logged yet.")]
    _, boundaries = _axis(stages)
    skipped = sum(s.steps[-1].get("skipped", 0) for s in stages)
    blocks: list = [
        Figure(
            lines(
                [_curve(stages, "nll", "cross-entropy")],
                x="tokens (millions)",
                y="nats per token",
                boundaries=boundaries,
            ),
            f"Cross-entropy of the training batches. Updates refused by the guard: {skipped}.",
        )
    ]
    taught = [s for s in stages if any("divergence" in row for row in s.steps)]
    if taught:
        figure = lines(
            [Series(s.name, [r["tokens"] / 1e6 for r in s.steps], [r["divergence"] for r in s.steps]) for s in taught],
            x="tokens (millions)",
            y="nats per token",
            log_y=True,
        )
        blocks.append(Figure(figure, "Divergence from the teacher, where there is one."))
    return blocks


def _scores(stages: list[_Stage]) -> list[Block]:
    """The scores by which stages choose their checkpoints, where these are not bits per byte."""
    blocks: list[Block] = []
    before, boundaries = _axis(stages)
    points: dict[tuple[str, str], list[Series]] = {}
    for stage in stages:
        rows = [row for row in stage.evals if row.get("score", {}).get("name") not in (None, "bits_per_byte")]
        if rows:
            score = rows[-1]["score"]
            x = [before[stage.name] + row["tokens"] / 1e6 for row in rows]
            series = Series(stage.name, x, [row["score"]["value"] for row in rows])
            points.setdefault((score["name"], score["better"]), []).append(series)
    for (name, better), series in points.items():
        figure = lines(series, x="tokens (millions)", y=name.replace("_", " "), boundaries=boundaries, markers=True)
        blocks.append(Figure(figure, f"{name.replace('_', ' ').capitalize()}; {better} is better."))
    return blocks


def _bits(stages: list[_Stage]) -> list[Block]:
    stages = [s for s in stages if any(row["eval"].get("bits_per_byte") for row in s.evals)]
    if not stages:
        return []
    before, boundaries = _axis(stages)
    blocks: list[Block] = []
    for prefix, what in (("lang/", "language"), ("source/", "source")):
        names = [n for n in stages[-1].evals[-1]["eval"].get("bits_per_byte", {}) if n.startswith(prefix)]
        series = []
        for name in names:
            points = [
                (before[s.name] + row["tokens"] / 1e6, row["eval"]["bits_per_byte"][name])
                for s in stages
                for row in s.evals
                if name in row["eval"].get("bits_per_byte", {})
            ]
            series.append(Series(name.removeprefix(prefix), [p[0] for p in points], [p[1] for p in points]))
        if what == "language":
            figure = lines(
                series, x="tokens (millions)", y="bits per byte", log_y=True, boundaries=boundaries, markers=True
            )
            blocks.append(
                Figure(
                    figure,
                    "Held-out bits per byte of UTF-8 text, by language; lower is better, and it does not depend on the tokenizer.",
                )
            )
        columns = [
            (f"{when} of {s.name}", row["eval"].get("bits_per_byte", {}))
            for s in stages
            for when, row in (("start", s.evals[0]), ("end", s.evals[-1]))
            if when == "end" or (row["step"] == 0 and s.config.get("start") not in [other.name for other in stages])
        ]
        rows = [[s.label, *(found.get(prefix + s.label) for _, found in columns)] for s in series]
        blocks.append(Table((what, *(title for title, _ in columns)), rows, f"Bits per byte by {what}."))
    return blocks


def _tasks(stages: list[_Stage]) -> list[Block]:
    """Benchmarks that ran while stages trained: one figure per metric, one line per task."""
    asked = [s for s in stages if any(row["eval"].get("tasks") for row in s.evals)]
    if not asked:
        return []
    before, boundaries = _axis(stages)
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for stage in asked:
        for row in stage.evals:
            for task, metrics in row["eval"].get("tasks", {}).items():
                for metric, value in metrics.items():
                    if not metric.endswith("_stderr"):
                        at = before[stage.name] + row["tokens"] / 1e6
                        points.setdefault(metric, {}).setdefault(task, []).append((at, value))
    return [
        Figure(
            lines(
                [Series(task, [x for x, _ in xy], [y for _, y in xy]) for task, xy in tasks.items()],
                x="tokens (millions)",
                y=metric,
                boundaries=boundaries,
                markers=True,
            ),
            f"Tasks asked while training: {metric}.",
        )
        for metric, tasks in points.items()
    ]


def _samples(stages: dict[str, _Stage]) -> list[Block]:
    shown = [
        (title, samples)
        for s in stages.values()
        for title, samples in (
            (f"Before {s.name}: the model that it starts from", s.samples_before),
            (f"After {s.name} (step {s.samples[0]['step']:,})" if s.samples else "", s.samples),
        )
        if samples
    ]
    return [
        Samples([Sample(x["lang"], x["prompt"], x["text"]) for x in samples], f"{title}; the prompt is bold.")
        for title, samples in shown
    ]


def _data(stages: dict[str, _Stage]) -> list[Block]:
    blocks: list[Block] = []
    earlier: dict[str, int] = {}
    last = None
    for s in stages.values():
        if not s.data:
            continue
        last, sources = s, s.data["sources"]
        here = {n: v["tokens"] - earlier.get(n, 0) for n, v in sources.items()}
        earlier = {n: v["tokens"] for n, v in sources.items()}
        wanted = s.config.get("mixture", {})
        total_wanted, total_here = sum(wanted.values()) or 1, sum(here.values()) or 1
        used = [n for n in sources if wanted.get(n) or here[n]]
        shares = {
            "wanted": [100 * wanted.get(n, 0) / total_wanted for n in used],
            "seen": [100 * here[n] / total_here for n in used],
        }
        blocks.append(Figure(bars(used, shares, x="% of tokens"), f"Mixture of {s.name}."))
    if last is None:
        return blocks
    rows = []
    for name, v in last.data["sources"].items():
        dropped = ", ".join(f"{rule} {n['first']}" for rule, n in v["rules"].items() if n["first"]) or "–"
        unjudged = v.get("unjudged", 0)
        counts = (v["documents_total"], v["documents"], v["kept"], dropped, unjudged, v["tokens"], v["epochs"], v["broken_lines"])
        rows.append((name, v["lang"], *counts))
    columns = ("source", "language", "documents", "seen", "kept", "dropped", "without filter", "tokens", "epochs", "broken lines")
    caption = f"Documents from the beginning to the end of {last.name}. Epochs: of the lane that is furthest."
    return [*blocks, Table(columns, rows, caption, formats={"epochs": ".3f"})]


def _optimizer(stages: list[_Stage]) -> list:
    if not stages:
        return []
    _, boundaries = _axis(stages)
    x = "tokens (millions)"
    return [
        Figure(
            lines([_curve(stages, "lr")], x=x, y="learning rate", boundaries=boundaries, height=2.4), "Learning rate."
        ),
        Figure(
            lines([_curve(stages, "grad_norm")], x=x, y="global norm", log_y=True, boundaries=boundaries, height=2.4),
            "Gradient norm before clipping.",
        ),
    ]


def _throughput(stages: list[_Stage]) -> list:
    stages = [s for s in stages if any(r.get("tokens_per_s") for r in s.steps)]
    if not stages:
        return []
    _, boundaries = _axis(stages)
    rows = []
    for s in stages:
        timed = sorted((r for r in s.steps if r.get("tokens_per_s")), key=lambda r: r["tokens_per_s"])
        middle = timed[len(timed) // 2]
        wait = sum(r["data_wait_s"] for r in timed) / max(sum(r["step_s"] for r in timed), 1e-9)
        filtering = sum(r.get("filter_share", 0.0) for r in timed) / len(timed)
        rows.append([s.name, middle["tokens_per_s"], 100 * middle["mfu"], 100 * wait, 100 * filtering])
    return [
        Figure(
            lines(
                [_curve(stages, "tokens_per_s")],
                x="tokens (millions)",
                y="tokens per second",
                boundaries=boundaries,
                height=2.4,
            ),
            "Tokens a second, evaluation and checkpoints not counted.",
        ),
        Table(
            ("stage", "tokens/s (median)", "MFU %", "data wait %", "filtering % of a core"),
            rows,
            "MFU = tokens/s · (6·N_matmul + 6·L·T·H·h) / peak: causal attention, no rematerialisation; peak from the chip's data sheet, on a CPU a measured matrix product.",
        ),
    ]
