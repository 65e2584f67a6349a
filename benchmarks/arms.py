"""Compares the arms of an ablation over seeds.

    python benchmarks/arms.py runs/filtering [--metric lang/ko lang/en] [--first] [--stages STAGE …]
    python benchmarks/arms.py benchmarks/annealing.jsonl --against whole

The folder holds one workdir per arm and seed (`ARM-SEED`), whose last stage counts; with `--stages` one workdir per
seed, whose stages are the arms. Prints each arm's mean of held-out bits per byte at the end of the stage with a 95%
t-interval over seeds, and the mean difference to the first arm, paired by seed. `--first` takes the evaluation before
the stage's first step: what surgery left. In place of a folder a file of `parts.py` may be given,
whose figures may be others.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

import numpy as np


def results(folder: pathlib.Path, stages: Sequence[str] = ()) -> dict[str, dict[str, pathlib.Path]]:
    """arm → seed → folder of the stage that counts, of finished ones."""
    arms: dict[str, dict[str, pathlib.Path]] = {stage: {} for stage in stages}
    for workdir in sorted(folder.iterdir()):
        if not (workdir / "config.json").is_file():
            continue
        if stages:
            found = {stage: (workdir.name, workdir / stage) for stage in stages}
        else:
            arm, _, seed = workdir.name.rpartition("-")
            last = json.loads((workdir / "config.json").read_text(encoding="utf-8"))["config"]["stages"][-1]
            found = {arm: (seed, workdir / last)}
        for arm, (seed, stage) in found.items():
            if (stage / "model" / "model.json").is_file():
                arms.setdefault(arm, {})[seed] = stage
    return {arm: seeds for arm, seeds in arms.items() if seeds}


def bits_per_byte(stage: pathlib.Path, first: bool = False) -> dict[str, float]:
    """At the end of a finished stage, or before its first step."""
    if not first:
        return json.loads((stage / "model" / "model.json").read_text(encoding="utf-8"))["evaluation"]["bits_per_byte"]
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return next(row for row in rows if "eval" in row and row["step"] == 0)["eval"]["bits_per_byte"]


def recorded(file: pathlib.Path) -> dict[str, dict[str, dict[str, float]]]:
    """arm → seed → bits per byte or other figures, of a file's lines; the last of several of one part counts."""
    arms: dict[str, dict[str, dict[str, float]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        arms.setdefault(row["arm"], {})[str(row["seed"])] = row.get("bits_per_byte") or row["figures"]
    return arms


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95% t-interval (NaN for a single value)."""
    from scipy import stats

    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    return float(np.mean(values)), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--metric", nargs="+", default=["lang/ko", "lang/en"])
    parser.add_argument("--first", action="store_true", help="before the last stage's first step")
    parser.add_argument("--against", default="", metavar="ARM", help="default: the first by name")
    parser.add_argument("--stages", nargs="+", default=[], help="arms, where a workdir holds all of a seed")
    options = parser.parse_args()
    if options.folder.is_file():
        arms = recorded(options.folder)
    else:
        arms = {
            arm: {seed: bits_per_byte(stage, options.first) for seed, stage in seeds.items()}
            for arm, seeds in results(options.folder, options.stages).items()
        }
    base = options.against or next(iter(arms))
    for metric in options.metric:
        for arm, seeds in arms.items():
            seeds = {seed: own for seed, own in seeds.items() if metric in own}
            if not seeds:
                continue
            mean, half = interval([own[metric] for own in seeds.values()])
            both = [seed for seed in sorted(seeds.keys() & arms[base].keys()) if metric in arms[base][seed]]
            change, change_half = interval([seeds[s][metric] - arms[base][s][metric] for s in both])
            line = {"metric": metric, "arm": arm, "seeds": len(seeds), "mean": round(mean, 4), "ci95": round(half, 4)}
            if arm != base:
                line |= {f"minus {base}": round(change, 4), "ci95 of it": round(change_half, 4)}
            print(json.dumps(line))


if __name__ == "__main__":
    main()
