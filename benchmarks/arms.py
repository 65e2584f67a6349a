"""Compares the arms of an ablation over seeds.

    python benchmarks/arms.py runs/filtering [--metric lang/ko lang/en] [--first]

The folder holds one workdir an arm and seed (`ARM-SEED`). Prints each arm's mean of held-out bits per byte at the end
of the last stage with a 95% t-interval over seeds, and the mean difference to the first arm, paired by seed. `--first`
takes the evaluation before the last stage's first step: what surgery left.
"""

import argparse
import json
import pathlib

import numpy as np


def results(folder: pathlib.Path, first: bool = False) -> dict[str, dict[str, dict[str, float]]]:
    """arm → seed → metric → bits per byte, of finished runs."""
    arms: dict[str, dict[str, dict[str, float]]] = {}
    for workdir in sorted(folder.iterdir()):
        arm, _, seed = workdir.name.rpartition("-")
        if not (workdir / "config.json").is_file():
            continue
        last = json.loads((workdir / "config.json").read_text())["config"]["stages"][-1]
        card = workdir / last / "model" / "model.json"
        if card.is_file() and first:
            rows = [json.loads(line) for line in (workdir / last / "metrics.jsonl").read_text().splitlines()]
            begin = next(row for row in rows if "eval" in row and row["step"] == 0)
            arms.setdefault(arm, {})[seed] = begin["eval"]["bits_per_byte"]
        elif card.is_file():
            arms.setdefault(arm, {})[seed] = json.loads(card.read_text())["evaluation"]["bits_per_byte"]
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
    options = parser.parse_args()
    arms = results(options.folder, options.first)
    base = options.against or next(iter(arms))
    for metric in options.metric:
        for arm, seeds in arms.items():
            mean, half = interval([bits[metric] for bits in seeds.values()])
            both = sorted(seeds.keys() & arms[base].keys())
            change, change_half = interval([seeds[s][metric] - arms[base][s][metric] for s in both])
            line = {"metric": metric, "arm": arm, "seeds": len(seeds), "mean": round(mean, 4), "ci95": round(half, 4)}
            if arm != base:
                line |= {f"minus {base}": round(change, 4), "ci95 of it": round(change_half, 4)}
            print(json.dumps(line))


if __name__ == "__main__":
    main()
