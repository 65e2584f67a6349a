"""Surgery in a run's report: what each cut kept, how parts were scored, and what the family of models cost."""

import json
import pathlib
from typing import Any

import numpy as np

from kanana_jax.report.page import Block, Figure, Table, Text
from kanana_jax.report.plots import Series, heatmap, lines

Json = dict[str, Any]
BINS = 12  # of parts, ranked, in the heat map of a layer


def surgery_blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Tables and heat maps of the stages that hold `surgery.json`.

    Args:
      folders: stage → its folder.
    """
    blocks: list[Block] = []
    rows = []
    for name, folder in folders.items():
        file = folder / "surgery.json"
        if not file.is_file():
            continue
        report = json.loads(file.read_text())
        kept = {key: f"{new:,} of {old:,}" for key, (new, old) in report["kept"].items()}
        depth = f"{len(report['layers'])} of {report['before']['num_layers']}"
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
        words.append(f"layers {report['copied_layers']} are copies of the old {of}")
    if report["identity_layers"]:
        words.append(f"layers {report['identity_layers']} add nothing at first")
    if report["dropped_layers"]:
        words.append(f"old layers {report['dropped_layers']} are gone")
    if report["tied_by_averaging"]:
        words.append("the embeddings are tied by averaging")
    if report["norms_rescaled"]:
        words.append("norms are rescaled")
    return "; ".join(words) or "all layers stay, each narrower"


def _importance(name: str, folder: pathlib.Path) -> list[Block]:
    file = folder / "importance.npz"
    if not file.is_file():
        return []
    with np.load(file, allow_pickle=False) as found:
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
            f"{name}: importance of MLP neurons, each layer's ranked and cut into twelve, relative to the mean of all.",
        )
    )
    order = np.sort(channels)[::-1] / np.maximum(channels.mean(), 1e-30)
    places = (100 * (np.arange(len(order)) + 1) / len(order)).tolist()
    blocks.append(
        Figure(
            lines([Series("channels", places, order.tolist())], x="% of channels, ranked", y="importance"),
            f"{name}: importance of residual channels, relative to their mean. Layers turn the stream by "
            f"{', '.join(f'{x:.3f}' for x in layers)} (1 − cosine).",
        )
    )
    return blocks


def family_cost(cards: dict[str, Json]) -> Json | None:
    """What a family cost against training each of its models from scratch.

    The family are the trained models that no other stage starts from or that are as they leave the recipe; each would
    have cost, from scratch, its own FLOPs a token times the tokens that the models trained from scratch have seen. This is how
    Kanana counts its 11.06% (arXiv:2502.18934, §2.2): 1 − spent / scratch.

    Args:
      cards: stage → its `model.json`.

    Returns:
      `spent` (students, teachers, calibration, by kind), `scratch`, `saved` share, `models`; None without surgery.
    """
    if not any(
        card["flops"]["calibration"] or card["flops"]["teacher"] or not card["tokens"] for card in cards.values()
    ):
        return None
    parent_of = {name: _stage_of(card["parent"], cards) for name, card in cards.items()}
    leaves = [name for name, card in cards.items() if card["tokens"] and name not in parent_of.values()]
    base = sum(card["tokens"] for name, card in cards.items() if _from_scratch(name, cards, parent_of))
    spent = {key: sum(card["flops"][key] for card in cards.values()) for key in ("train", "teacher", "calibration")}
    scratch = sum(cards[name]["flops"]["train"] / cards[name]["tokens"] * base for name in leaves)
    total = sum(spent.values())
    return {"spent": spent, "total": total, "scratch": scratch, "saved": 1 - total / scratch if scratch else 0.0,
            "models": leaves, "tokens": base}  # fmt: skip


def _stage_of(parent: str | None, cards: dict[str, Json]) -> str | None:
    """The stage that a parent path names."""
    parts = pathlib.PurePath(parent).parts if parent else ()
    return next((part for part in reversed(parts) if part in cards), None)


def _from_scratch(name: str, cards: dict[str, Json], parent_of: dict[str, str | None]) -> bool:
    """Whether a stage trains a model that never went through surgery."""
    current: str | None = name
    while current is not None:
        card = cards[current]
        if not card["tokens"] or card["flops"]["teacher"] or card.get("cache"):
            return False
        current = parent_of[current]
    return True


def cost_blocks(cards: dict[str, Json]) -> list[Block]:
    """The family's ledger."""
    found = family_cost(cards)
    if found is None:
        return []
    spent = found["spent"]
    rows = [
        ("training", spent["train"]),
        ("teachers' forward passes", spent["teacher"]),
        ("calibration", spent["calibration"]),
        ("all together", found["total"]),
        (f"{', '.join(found['models'])} from scratch, {found['tokens']:,} tokens each", found["scratch"]),
    ]
    words = "saved" if found["saved"] >= 0 else "more"
    return [
        Table(("what", "FLOPs"), rows, formats={"FLOPs": ".4g"}),
        Text(
            f"{abs(100 * found['saved']):.1f}% {words} against training each from scratch for as many tokens as the base saw."
        ),
    ]
