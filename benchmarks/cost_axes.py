"""Pruned and distilled against from scratch on four axes of cost (arXiv:2502.18934, Table 5; arXiv:2502.08606).

    python benchmarks/cost_axes.py runs/small/pruning --teacher runs/small/teacher/stage1 --output runs/small/cost

Reads the workdirs of `configs/ablations/pruning.py`, one per seed. The axes: tokens of the student; its own FLOPs; with
the teacher's forward passes and the calibration; tokens of the whole pipeline, those that the teacher was trained on
too. Prints a line for each arm and length (mean over seeds, 95% t-interval), how much each gains on the fresh model
that learns from text for as much on each axis (interpolated in the logarithm of the cost), and writes the curves to
`report.html`.
"""

import argparse
import json
import pathlib

import numpy as np
from arms import bits_per_byte, interval

from kanana_jax.models.laws import distilled_loss, supervised_loss
from kanana_jax.report.page import Figure, Page, Section, Table, write
from kanana_jax.report.plots import Series, lines

ARMS = ("pruned_kd", "pruned_ce", "scratch_kd", "scratch_ce")
AXES = ("tokens", "student FLOPs", "FLOPs with the teacher's forward", "tokens with the teacher's training")


def read(folder: pathlib.Path, teacher: dict) -> dict[str, list[dict]]:
    """arm → points (cost on each axis, bits per byte and nats a token of each seed), by length."""
    arms: dict[str, dict[int, dict]] = {arm: {} for arm in ARMS}
    for workdir in sorted(folder.iterdir()):
        for arm in ARMS:
            for stage in workdir.glob(f"{arm}_*"):
                file = stage / "model" / "model.json"
                if not file.is_file():
                    continue
                card = json.loads(file.read_text(encoding="utf-8"))
                flops = card["flops"]
                spent = flops["train"] + flops["teacher"]
                if arm.startswith("pruned"):
                    parent = json.loads((workdir / "pruned/model/model.json").read_text(encoding="utf-8"))
                    spent += parent["flops"]["calibration"]
                whole = card["tokens"] + (0 if arm == "scratch_ce" else teacher["tokens"])
                point = arms[arm].setdefault(int(stage.name.rpartition("_")[2]), {"seeds": {}, "card": card})
                point["costs"] = (card["tokens"], flops["train"], spent, whole)
                bits = bits_per_byte(stage)
                point["seeds"][workdir.name] = (
                    np.mean([v for k, v in bits.items() if k.startswith("lang/")]),
                    np.mean(list(card["evaluation"]["loss"].values())),
                )
    return {arm: [dict(point, percent=p) for p, point in sorted(points.items())] for arm, points in arms.items()}


def at(points: list[dict], axis: int, cost: float, seed: str) -> float | None:
    """Bits per byte of an arm at a cost, interpolated between its lengths; None outside of them."""
    known = [p for p in points if seed in p["seeds"]]
    x, y = np.log([p["costs"][axis] for p in known]), [p["seeds"][seed][0] for p in known]
    inside = len(known) > 1 and x[0] - 1e-6 <= np.log(cost) <= x[-1] + 1e-6
    return float(np.interp(np.log(cost), x, y)) if inside else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--teacher", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    teacher = json.loads((options.teacher / "model" / "model.json").read_text(encoding="utf-8"))
    arms = read(options.folder, teacher)
    fresh = arms["scratch_ce"]
    rows = []
    for arm, points in arms.items():
        for point in points:
            mean, half = interval([bits for bits, _ in point["seeds"].values()])
            row = [arm, point["percent"], len(point["seeds"]), round(mean, 4), "" if np.isnan(half) else round(half, 4)]
            for axis in range(len(AXES)):
                gains = []
                for seed, (bits, _) in point["seeds"].items():
                    other = at(fresh, axis, point["costs"][axis], seed)
                    if other is not None and arm != "scratch_ce":
                        gains.append(bits - other)
                row.append(
                    ("{:+.3f} ± {:.3f}" if len(gains) > 1 else "{:+.3f}").format(*interval(gains)) if gains else ""
                )
            rows.append(row)
    columns = ("arm", "percent", "seeds", "bits/byte", "±", *(f"gain: {axis}" for axis in AXES))
    for row in rows:
        print(json.dumps(dict(zip(columns, row)), ensure_ascii=False))
    figures = [Table(columns, rows)]
    for axis, name in enumerate(AXES):
        series = []
        for arm, points in filter(lambda item: item[1], arms.items()):
            found = [interval([bits for bits, _ in p["seeds"].values()]) for p in points]
            low, high = ([m + sign * (0 if np.isnan(h) else h) for m, h in found] for sign in (-1, 1))
            series.append(Series(arm, [p["costs"][axis] for p in points], [m for m, _ in found], low, high))
        figures.append(Figure(lines(series, x=name, y="held-out bits per byte", log_x=True), f"By {name}."))
    figures += law(arms, teacher)
    lead = "Held-out bits per byte of a pruned and of a fresh model, by what they cost."
    page = Page("What pruning and distillation buy", lead, [Section("Costs", figures)])
    options.output.mkdir(parents=True, exist_ok=True)
    print(write(page, options.output / "report.html"))


def law(arms: dict[str, list[dict]], teacher: dict) -> list:
    """Measured gain of a teacher over the text alone, in nats, beside Apple's law, by tokens a parameter."""

    def non_embedding(card):
        a = card["architecture"]
        return card["parameters"] - a["vocab_size"] * a["embed_dim"] * (1 if a["tied_embeddings"] else 2)

    series, size = [], non_embedding(arms["scratch_ce"][0]["card"])
    for start in ("scratch", "pruned"):
        pairs = [(k, c) for k in arms[f"{start}_kd"] for c in arms[f"{start}_ce"] if k["percent"] == c["percent"]]
        gains = [
            np.mean([k["seeds"][s][1] - c["seeds"][s][1] for s in k["seeds"].keys() & c["seeds"].keys()])
            for k, c in pairs
        ]
        if pairs:
            series.append(Series(f"{start}: measured", [k["card"]["tokens"] / size for k, _ in pairs], gains))
    teacher_loss = supervised_loss(non_embedding(teacher), teacher["tokens"])
    grid = np.geomspace(*(arms["scratch_ce"][i]["card"]["tokens"] for i in (0, -1)), 30)
    gains = [distilled_loss(size, d, teacher_loss) - supervised_loss(size, d) for d in grid]
    series.append(Series("Apple's law", list(grid / size), gains))
    figure = lines(series, x="tokens a non-embedding parameter", y="teacher minus text, nats a token", log_x=True)
    return [Figure(figure, "What learning from the teacher in place of the text changes at equal tokens.")]


if __name__ == "__main__":
    main()
