"""The report of a training workdir, written from its files alone; kinds of stages contribute chapters."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kanana_jax.files import load_json
from kanana_jax.report.page import (
    Block,
    Chapter,
    Code,
    Details,
    Figure,
    Page,
    Sample,
    Samples,
    Section,
    Table,
    Text,
    write,
)
from kanana_jax.report.plots import Series, bars, lines
from kanana_jax.report.run_stages import Stage, Tree
from kanana_jax.report.run_summary import summary_blocks
from kanana_jax.report.run_tasks import task_blocks

Json = dict[str, Any]
TOKENS = "tokens (millions)"
_SHOWN_MIXTURES = 4  # mixture figures shown at once; the others are collapsed


def write_run_report(
    workdir: pathlib.Path, chapters: Sequence[Chapter] = (), results: Mapping[str, str] = MappingProxyType({})
) -> pathlib.Path:
    """Writes `DIR/report.html` for a finished, running or broken run, and returns its path.

    Args:
      chapters: sections that the kinds of stages contribute.
      results: kind of stage → the file in a stage's folder that marks it as finished; default `model/model.json`.

    Raises:
      UserError: there is no `config.json`, so the folder is not a workdir.
    """
    run = load_json(workdir / "config.json")
    names = list(run["config"]["stages"])
    stages = {name: Stage(workdir / name, name, run["config"].get(name, {}), names, results) for name in names}
    tree = Tree(stages)
    folders = {name: workdir / name for name in names}

    def written(first: bool) -> list[Section]:
        own = (chapter for chapter in chapters if chapter.first == first)
        return [section for chapter in own for section in _optional(chapter.title, chapter.blocks(folders))]

    page = Page(
        f"Run '{run['config'].get('name', workdir.name)}'",
        f"On {run['devices']}, since {run['started']}.",
        [
            Section("In short", summary_blocks(tree, run)),
            *written(first=True),
            Section("Data", _data(stages)),
            *_optional("Held-out text", _bits(tree)),
            Section("Loss", _loss(tree)),
            Section("Models", _models(stages)),
            *written(first=False),
            *_optional("Scores", _scores(tree)),
            *_optional("Tasks", task_blocks(tree, TOKENS)),
            Section("Samples", _samples(stages)),
            Section("Learning rate and gradient", _optimizer(tree)),
            Section("Throughput", _throughput(tree)),
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


def _models(stages: Mapping[str, Stage]) -> list[Block]:
    rows = []
    for s in stages.values():
        if s.card:
            a, flops = s.card["architecture"], s.card["flops"]
            shape = f"{a['num_layers']} × {a['embed_dim']} / {a['mlp_dim']}"
            heads = f"{a['num_heads']} ({a['num_kv_heads']} KV)"
            sampled = flops.get("sampler", 0.0) + flops.get("reward", 0.0)
            ledger = (flops["train"], flops["teacher"], sampled, flops["calibration"])
            rows.append((s.name, shape, heads, s.card["parameters"], s.card["tokens"], *ledger, _parent(s.card)))
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
        "sampling",
        "calibration",
        "from",
    )
    caption = (
        "FLOPs are matrix products with causal attention, of this stage alone; sampling: of writing answers and of a "
        "reward model that reads them."
    )
    return [Table(columns, rows, caption, formats=dict.fromkeys(("FLOPs", *columns[6:9]), ".3g"))]


def _parent(card: Json) -> str:
    """The stage (or folder) from which a model was made; the card's `parent` is relative within a workdir."""
    parent = card["parent"] or "–"
    return pathlib.PurePath(parent).parts[-2] if parent.startswith("../") else parent


def _loss(tree: Tree) -> list[Block]:
    stages = tree.trained()
    if not stages:
        return [Text("No step is logged yet.")]
    skipped = sum(s.steps[-1].get("skipped", 0) for s in stages)
    blocks: list[Block] = [
        Figure(
            lines(tree.curves("nll") or tree.curves("loss"), x=TOKENS, y="nats per token"),
            "Cross-entropy of the training batches; lower is better. Each stage's line begins where its parent's ended. "
            f"Updates refused by the guard: {skipped}.",
        )
    ]
    taught = tree.curves("divergence")
    if taught:
        figure = lines(taught, x=TOKENS, y="nats per token", log_y=True)
        blocks.append(Figure(figure, "Divergence from the teacher, in stages that have one; lower is better."))
    return blocks


def _scores(tree: Tree) -> list[Block]:
    """The scores by which stages choose checkpoints, if other than bits per byte."""
    blocks: list[Block] = []
    points: dict[tuple[str, str], list[Series]] = {}
    for stage in tree.trained():
        rows = [row for row in stage.evals if row.get("score", {}).get("name") not in (None, "bits_per_byte")]
        if rows:
            score = rows[-1]["score"]
            series = Series(stage.name, [tree.at(stage, r) for r in rows], [r["score"]["value"] for r in rows])
            points.setdefault((score["name"], score["better"]), []).append(series)
    for (name, better), series in points.items():
        figure = lines(series, x=TOKENS, y=name.replace("_", " "), markers=True)
        blocks.append(Figure(figure, f"{name.replace('_', ' ').capitalize()}; {better} is better."))
    return blocks


def _bits(tree: Tree) -> list[Block]:
    stages = [s for s in tree.trained() if any(row["eval"].get("bits_per_byte") for row in s.evals)]
    if not stages:
        return []
    blocks: list[Block] = []
    for prefix, what in (("lang/", "language"), ("source/", "source")):
        found = [row["eval"].get("bits_per_byte", {}) for s in stages for row in s.evals]
        names = list(dict.fromkeys(name for values in found for name in values if name.startswith(prefix)))
        for name in names if what == "language" else ():
            series = []
            for s in stages:
                rows = [row for row in s.evals if name in row["eval"].get("bits_per_byte", {})]
                y = [row["eval"]["bits_per_byte"][name] for row in rows]
                series.append(Series(s.name, [tree.at(s, row) for row in rows], y))
            figure = lines(series, x=TOKENS, y="bits per byte", log_y=True, markers=True)
            caption = (
                f"Held-out bits per byte of UTF-8 text, '{name.removeprefix(prefix)}', by stage; lower is better, and it "
                "does not depend on the tokenizer."
            )
            blocks.append(Figure(figure, caption))
        columns = [
            (f"{when} of {s.name}", row["eval"].get("bits_per_byte", {}))
            for s in stages
            for when, row in (("start", s.evals[0]), ("end", s.evals[-1]))
            if when == "end" or (row["step"] == 0 and s.parent not in [other.name for other in stages])
        ]
        rows = [[name.removeprefix(prefix), *(values.get(name) for _, values in columns)] for name in names]
        caption = f"Bits per byte by {what}; lower is better."
        blocks.append(Table((what, *(title for title, _ in columns)), rows, caption))
    return blocks


def _samples(stages: Mapping[str, Stage]) -> list[Block]:
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


def _data(stages: Mapping[str, Stage]) -> list[Block]:
    blocks: list[Block] = []
    most: dict[str, Json] = {}
    for s in stages.values():
        if not s.data:
            continue
        sources, earlier = s.data["sources"], _read_before(s, stages)
        here = {n: v["tokens"] - earlier.get(n, 0) for n, v in sources.items()}
        most |= {n: v for n, v in sources.items() if v["tokens"] >= most.get(n, {}).get("tokens", 0)}
        wanted = s.config.get("mixture", {})
        total_wanted, total_here = sum(wanted.values()) or 1, sum(here.values()) or 1
        used = [n for n in sources if wanted.get(n) or here[n]]
        shares = {
            "wanted": [100 * wanted.get(n, 0) / total_wanted for n in used],
            "seen": [100 * here[n] / total_here for n in used],
        }
        blocks.append(Figure(bars(used, shares, x="% of tokens"), f"Mixture of {s.name}."))
    if not most:
        return blocks
    mixtures = blocks if len(blocks) <= _SHOWN_MIXTURES else [Details("Mixture of each stage", blocks)]
    return [*mixtures, _sources(most)]


def _read_before(stage: Stage, stages: Mapping[str, Stage]) -> dict[str, int]:
    """Source → tokens read by the stage's ancestors, which the stage's own report includes."""
    name = stage.config.get("data_after") or stage.parent or ""
    while name in stages:
        if data := stages[name].data:
            return {source: v["tokens"] for source, v in data["sources"].items()}
        name = stages[name].parent or ""
    return {}


def _sources(most: Mapping[str, Json]) -> Table:
    rows = []
    for name, v in most.items():
        dropped = ", ".join(f"{rule} {n['first']}" for rule, n in v["rules"].items() if n["first"]) or "–"
        counts = (
            v["documents_total"],
            v["documents"],
            v["kept"],
            dropped,
            v.get("unjudged", 0),
            v["tokens"],
            v["epochs"],
            v["broken_lines"],
        )
        rows.append((name, v["lang"], *counts))
    columns = (
        "source",
        "language",
        "documents",
        "seen",
        "kept",
        "dropped",
        "without filter",
        "tokens",
        "epochs",
        "broken lines",
    )
    caption = (
        "Documents of each source from the beginning to the end of the stage that has read most of it. Epochs: of the "
        "lane that is furthest."
    )
    return Table(columns, rows, caption, formats={"epochs": ".3f"})


def _optimizer(tree: Tree) -> list[Block]:
    if not tree.trained():
        return []
    return [
        Figure(lines(tree.curves("lr"), x=TOKENS, y="learning rate", height=2.4), "Learning rate."),
        Figure(
            lines(tree.curves("grad_norm"), x=TOKENS, y="global norm", log_y=True, height=2.4),
            "Gradient norm before clipping.",
        ),
    ]


def _throughput(tree: Tree) -> list[Block]:
    stages = [s for s in tree.trained() if any(r.get("tokens_per_s") for r in s.steps)]
    if not stages:
        return []
    rows = []
    for s in stages:
        timed = sorted((r for r in s.steps if r.get("tokens_per_s")), key=lambda r: r["tokens_per_s"])
        middle = timed[len(timed) // 2]
        wait = sum(r["data_wait_s"] for r in timed) / max(sum(r["step_s"] for r in timed), 1e-9)
        filtering = sum(r.get("filter_share", 0.0) for r in timed) / len(timed)
        rows.append([s.name, middle["tokens_per_s"], 100 * middle["mfu"], 100 * wait, 100 * filtering])
    return [
        Figure(
            lines(tree.curves("tokens_per_s"), x=TOKENS, y="tokens per second", height=2.4),
            "Tokens per second, without evaluation and checkpoints; higher is better.",
        ),
        Table(
            ("stage", "tokens/s (median)", "MFU %", "data wait %", "filtering % of a core"),
            rows,
            "MFU = tokens/s · (6·N_matmul + 6·L·T·H·h) / peak: causal attention, no rematerialisation; peak from the chip's data sheet, on a CPU the fastest of a few measured matrix products, and at most 100%.",
        ),
    ]
