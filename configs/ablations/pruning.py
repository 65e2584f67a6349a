"""Pruning and distillation against training from scratch (arXiv:2502.18934, Table 5), at small scale.

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher
    kanana run --config configs/ablations/pruning.py:sweep --workdir runs/small/sweep
    for seed in 0 1 2; do
      kanana run --config configs/ablations/pruning.py:$seed --workdir runs/small/pruning/$seed
    done; python benchmarks/cost_axes.py runs/small/pruning --teacher runs/small/teacher/stage1

    python benchmarks/parts.py pruning_ratio      (only the paper's ratio, one arm and seed at a time)

With `,/path/to/documents` after the seed (and for the teacher), it runs on real text, in `runs/small_real`. One student
shape is pruned from the teacher or initialised at random, and learns from the teacher (`kd`) or from the text alone
(`ce`), for 2, 10 and 30% of the teacher's tokens. From scratch on text it also trains for 20%, for as many tokens as
the teacher (the paper compares 10% with this 100%) and for as many as the longest pipeline reads in all (130%). Arms of
one seed read the same text in the same order. `pruning.py:ARM-SEED` runs one arm alone.
"""

from kanana_jax.configs.ablations import small

ARMS = {  # arm: training lengths in percent of the teacher's tokens
    "pruned_kd": (2, 10, 30),
    "pruned_ce": (2, 10, 30),
    "scratch_kd": (2, 10, 30),
    "scratch_ce": (2, 10, 20, 30, 100, 130),  # 130: as many as the teacher and the longest student together
}
# The best for every arm among the rates run of `sweep`, at 5% of the teacher's tokens and with one seed. Other lengths
# were not swept.
LEARNING_RATE = 8e-3
SWEEP = (2e-3, 4e-3, 8e-3, 1.6e-2)
# This arm is twenty times as long as the sweep's runs, so half of the learning rate is tried as well.
LOWER = {"scratch_ce_100_lower": ("scratch_ce", 100, LEARNING_RATE / 2)}


def get_config(arg: str = "0"):
    which, _, documents = arg.partition(",")
    only, _, seed = which.rpartition("-")
    seed = 0 if which == "sweep" else int(seed)
    c = small.base(f"pruning {which}", seed, documents)
    weights = small.mixture(c)
    c.pruned = small.pruned(weights, documents=documents)
    if which == "sweep":
        arms = {f"{arm}_{1e3 * rate:g}e3": (arm, 5, rate) for arm in ARMS for rate in SWEEP}
    else:
        arms = {
            f"{arm}_{percent}": (arm, percent, LEARNING_RATE) for arm, lengths in ARMS.items() for percent in lengths
        }
    if only:
        arms = {only: (arms | LOWER)[only]}
    for name, (arm, percent, rate) in arms.items():
        start, signal = arm.split("_")
        stage = dict(mixture=weights, train=small.train(small.TOKENS * percent // 100, rate))
        if start == "pruned":
            stage["start"] = "pruned"
        else:
            shape = small.teacher_shape(4096 if documents else 1024).to_dict() | small.STUDENT
            stage["model"] = shape
        if signal == "kd":
            c[name] = dict(kind="distill", distill=dict(teacher=small.teacher(documents), dtype="float32"), **stage)
        else:
            c[name] = dict(kind="pretrain", **stage)
    c.stages = tuple(arms) if only.startswith("scratch") else ("pruned", *arms)
    return c
