"""Surgery in a run's report: the parts that each cut kept, and their scores."""

import pathlib
from typing import Any

import numpy as np

from kanana_jax.files import read_json, stage_down
from kanana_jax.interop.lineage import REPORT
from kanana_jax.report.page import Block, Chapter, Figure, Table, Text
from kanana_jax.report.plots import Series, heatmap, lines
from kanana_jax.surgery.importance import SCORES

Json = dict[str, Any]
BINS = 12  # of ranked parts, per layer of the heat map


def surgery_blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Tables and heat maps of the stages that hold `surgery.json`.

    Args:
      folders: stage → its folder.
    """
    blocks: list[Block] = []
    rows = []
    for name, folder in folders.items():
        report = read_json(folder / REPORT)
        if report is None:
            continue
        kept = {key: f"{new:,} of {old:,}" for key, (new, old) in report["kept"].items()}
        depth = f"{report['before']['num_layers']} → {len(report['layers'])}"
        old, new = report["parameters"]
        rows.append((name, depth, *kept.values(), old, new, f"{100 * new / old:.1f}%"))
        blocks.append(Text(f"{name}: {_layers(report)}"))
        blocks += _importance(name, folder)
    if not rows:
        return []
    columns = ("stage", "layers", "channels", "neurons", "heads", "KV heads", "parameters before", "after", "share")
    return [Table(columns, rows), *blocks]


def _layers(report: Json) -> str:
    words = []
    if report["copied_layers"]:
        of = [report["layers"][i] for i in report["copied_layers"]]
        words.append(f"layers {_listed(report['copied_layers'])} are copies of the old layers {_listed(of)}")
    if report["identity_layers"]:
        words.append(f"layers {_listed(report['identity_layers'])} start as the identity")
    if report["dropped_layers"]:
        words.append(f"the old layers {_listed(report['dropped_layers'])} are removed")
    if report["tied_by_averaging"]:
        words.append("the embeddings are tied by averaging")
    if report["norms_rescaled"]:
        words.append("norms are rescaled")
    return "; ".join(words) or "all layers are kept, each of them narrower"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _importance(name: str, folder: pathlib.Path) -> list[Block]:
    file = folder / SCORES
    if not file.is_file():
        return []
    with np.load(stage_down(file), allow_pickle=False) as found:
        neurons, heads, channels, layers = (found[key] for key in ("neurons", "heads", "channels", "layers"))
    blocks: list[Block] = []
    labels = [f"layer {i}" for i in range(len(heads))]
    relative = heads / np.maximum(heads.mean(), 1e-30)
    blocks.append(
        Figure(
            heatmap(labels, [f"head {i}" for i in range(heads.shape[1])], relative.tolist()),
            f"{name}: importance of query heads, relative to the mean of all.",
        )
    )
    ranked = np.sort(neurons, axis=1)[:, ::-1] / np.maximum(neurons.mean(), 1e-30)
    bins = [part.mean(axis=1) for part in np.array_split(ranked, BINS, axis=1)]
    shares = [f"{round(100 * (i + 1) / BINS)}%" for i in range(BINS)]
    blocks.append(
        Figure(
            heatmap(labels, shares, np.stack(bins, axis=1).tolist()),
            f"{name}: importance of MLP neurons, ranked and binned in each layer, relative to the mean of all.",
        )
    )
    order = np.sort(channels)[::-1] / np.maximum(channels.mean(), 1e-30)
    places = (100 * (np.arange(len(order)) + 1) / len(order)).tolist()
    blocks.append(
        Figure(
            lines([Series("channels", places, order.tolist())], x="% of channels, ranked", y="importance"),
            f"{name}: importance of residual channels, relative to their mean. Change of the residual stream by each "
            f"layer (1 − cosine of input and output): {', '.join(f'{x:.3f}' for x in layers)}.",
        )
    )
    return blocks


CHAPTER = Chapter("Surgery", surgery_blocks)
