"""Runs an ablation part by part, and keeps what came out in a file of lines.

    python benchmarks/parts.py annealing [--parts 1] [--list]

A part is an arm with a seed: one `kanana run` in a workdir of its own. The first seed of every arm comes first, so that
a series that is stopped has all arms with fewer seeds. A finished part adds a line to `benchmarks/NAME.jsonl`, and a
part that has a line is not run again, so the same command resumes; a part that was stopped on the way resumes in its
workdir. `python benchmarks/arms.py benchmarks/NAME.jsonl` compares the arms. `--list` says what is left.
With `--seeds`, two processes can share a series.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Arms and seeds of a config.

    Attributes:
      config: below `configs/ablations`, with `{arm}` and `{seed}` in its argument.
      folder: of the workdirs.
      arms: whose last stage counts.
      before: (file, arguments of `kanana` that make it), in their order, for all parts; `{seed}` is the part's.
      before_arm: the same for single arms, after those for all.
      figures: of a part: (folder of the last stage's model, arm, seed) → what its line says; None: held-out bits per
        byte, which the model's card has.
    """

    config: str
    folder: str
    arms: tuple[str, ...]
    before: tuple[tuple[str, str], ...]
    before_arm: Mapping[str, tuple[tuple[str, str], ...]] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    figures: Callable[[pathlib.Path, str, int], dict[str, float]] | None = None

    def workdir(self, arm: str, seed: int) -> pathlib.Path:
        return pathlib.Path(self.folder, f"{arm}-{seed}")


def aligned(model: pathlib.Path, arm: str, seed: int) -> dict[str, float]:
    """What a model of the alignment ablation can do; of a reward model, what its choice among 16 answers gains."""
    import alignment

    sft = pathlib.Path(f"runs/alignment/sft-{seed}/sft/model")
    if arm == "reward":
        return alignment.best_of(sft, model, 16)
    return alignment.measure(model, None if arm.startswith(("sft", "small", "without")) else sft)


def adapted(model: pathlib.Path, arm: str, seed: int) -> dict[str, float]:
    """The figures of every model of an arm of the adaptation."""
    import adaptation

    return adaptation.figures(arm, model.parents[1], pathlib.Path(f"runs/alignment/sft-{seed}/sft"))


def own_pairs(lang: str) -> tuple[str, str]:
    """Preference pairs of the answers of `sft` to prompts in a language, by their verifiers."""
    from kanana_jax.configs.tiny_adaptation import PEOPLE

    folder = "runs/alignment"
    file, prompts = f"{folder}/own_pairs-{{seed}}-{lang}.jsonl", f"microworld://prompts/{lang}?size={PEOPLE}&count=1000"
    return file, (
        f"best-of-n {folder}/sft-{{seed}}/sft --prompts {prompts} --n 8 --max-new-tokens 32 --seed {{seed}} "
        f"--output {folder}/own_pairs-{{seed}}-{lang}.json --pairs {file} --pairs-per-prompt 2"
    )


ABLATIONS = "configs/ablations"
EXPERIMENTS = {
    "annealing": Experiment(
        "annealing.py:{arm},{seed}",
        "runs/annealing",
        ("whole", "top", "next", "rest", "top_ko", "top_en"),
        (
            (
                "runs/filtering_model/model.bin",
                f"quality train --config {ABLATIONS}/filtering.py:model --output runs/filtering_model",
            ),
            (
                "runs/annealing/stage1/stage1/model/model.json",
                f"run --config {ABLATIONS}/annealing.py:stage1 --workdir runs/annealing/stage1",
            ),
        ),
    ),
    # What sliding windows cost the student of Kanana-2's chain.
    "windows": Experiment(
        "windows.py:{arm},{seed}",
        "runs/windows",
        ("windows", "full"),
        (
            (
                "runs/windows/base/stage2/model/model.json",
                f"run --config {ABLATIONS}/windows.py:base --workdir runs/windows/base",
            ),
        ),
        seeds=(0,),
    ),
    # The paper's second half, and Tables 9 and 11 in their shape.
    "alignment": Experiment(
        "alignment.py:{arm},{seed}",
        "runs/alignment",
        (
            *("sft", "reward", "dpo", "online", "grpo", "small", "small_distilled", "small_more"),
            *("online_moving", "k1", "k4", "dpo_own"),
            *("without_facts", "without_arithmetic", "without_translation", "without_format", "special", "merged"),
        ),
        (
            (
                "runs/alignment/base/stage2/model/model.json",
                f"run --config {ABLATIONS}/alignment.py:base --workdir runs/alignment/base",
            ),
        ),
        before_arm={"dpo_own": tuple(own_pairs(lang) for lang in ("ko", "en"))},
        figures=aligned,
    ),
    # Table 11 in its shape, and function calls.
    "adaptation": Experiment(
        "adaptation.py:{arm},{seed}",
        "runs/adaptation",
        ("documents", "calls", "calls_alone"),
        (
            (
                "runs/alignment/base/stage2/model/model.json",
                f"run --config {ABLATIONS}/alignment.py:base --workdir runs/alignment/base",
            ),
            (
                "runs/alignment/sft-{seed}/sft/model/model.json",
                f"run --config {ABLATIONS}/alignment.py:sft,{{seed}} --workdir runs/alignment/sft-{{seed}}",
            ),
        ),
        seeds=(0, 1),
        figures=adapted,
    ),
    # Table 5 at the paper's ratio; the teacher in the vocabulary of the table.
    "pruning_ratio": Experiment(
        "pruning.py:{arm}-{seed}",
        "runs/small/ratio",
        ("pruned_kd_10", "scratch_ce_100", "scratch_ce_100_lower"),
        (
            (
                "runs/small/teacher/stage1/model/model.json",
                f"run --config {ABLATIONS}/small.py --config.tokenizer.model_type=unigram --workdir runs/small/teacher",
            ),
        ),
    ),
}


def remaining(experiment: Experiment, rows: list[dict]) -> list[tuple[str, int]]:
    """Parts (arm, seed) that no row is of, every arm's first seed first."""
    known = {(row["arm"], row["seed"]) for row in rows}
    return [(arm, seed) for seed in experiment.seeds for arm in experiment.arms if (arm, seed) not in known]


def read(file: pathlib.Path) -> list[dict]:
    """The lines of a results file; none where there is no file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def row_of(experiment: Experiment, arm: str, seed: int) -> dict:
    """What a finished part's line says."""
    workdir = experiment.workdir(arm, seed)
    last = json.loads((workdir / "config.json").read_text(encoding="utf-8"))["config"]["stages"][-1]
    model = workdir / last / "model"
    card = json.loads((model / "model.json").read_text(encoding="utf-8"))
    values = {"arm": arm, "seed": seed, "parameters": card["parameters"], "tokens": card.get("tokens", 0)}
    if experiment.figures is not None:
        values["figures"] = experiment.figures(model, arm, seed)
    else:
        values["bits_per_byte"] = {k: round(v, 5) for k, v in card["evaluation"]["bits_per_byte"].items()}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return values | {"date": today, "jax": metadata.version("jax")}


def kanana(arguments: str) -> None:
    """Runs a verb in a process of its own, and ends as it does if it fails."""
    print(f"kanana {arguments}", flush=True)
    code = subprocess.run([sys.executable, "-m", "kanana_jax", *arguments.split()], check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--parts", type=int, default=0, help="at most so many; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these; default: all of the series")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.name]
    file = ROOT / "benchmarks" / f"{options.name}.jsonl"
    parts = [p for p in remaining(experiment, read(file)) if options.seeds is None or p[1] in options.seeds]
    if options.list:
        print("\n".join(f"{arm} {seed}" for arm, seed in parts))
        return
    for arm, seed in parts[: options.parts or None]:
        for made, arguments in (*experiment.before, *experiment.before_arm.get(arm, ())):
            if not pathlib.Path(made.format(seed=seed)).is_file():
                kanana(arguments.format(seed=seed))
        workdir, begun = experiment.workdir(arm, seed), time.monotonic()
        config = experiment.config.format(arm=arm, seed=seed)
        kanana(f"run --config {ABLATIONS}/{config} --workdir {workdir}")
        row = row_of(experiment, arm, seed)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row | {"wall_seconds": round(time.monotonic() - begun)}), flush=True)


if __name__ == "__main__":
    main()
