"""Pruned and distilled against trained from scratch (arXiv:2502.18934, Table 5), small.

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher
    kanana run --config configs/ablations/pruning.py:sweep --workdir runs/small/sweep
    for seed in 0 1 2; do
      kanana run --config configs/ablations/pruning.py:$seed --workdir runs/small/pruning/$seed
    done; python benchmarks/cost_axes.py runs/small/pruning --teacher runs/small/teacher/stage1

and with `,/path/to/documents` after the seed (and for the teacher) on real text, in `runs/small_real`. The same shape
starts pruned from the teacher or at random, and learns from the teacher (`kd`) or from the text alone (`ce`), for 2, 10
and 30% of the teacher's tokens; from scratch on text also for 20% and for all that the longest pipeline reads. Arms of
one seed read the same text in the same order.
"""

from kanana_jax.configs.ablations import small

ARMS = {  # arm: its lengths in percent of the teacher's tokens
    "pruned_kd": (2, 10, 30),
    "pruned_ce": (2, 10, 30),
    "scratch_kd": (2, 10, 30),
    "scratch_ce": (2, 10, 20, 30, 130),  # 130: as many as the teacher and the longest student together
}
# The best for every arm of what was run of `sweep`, at 5% of the teacher's tokens and with one seed; other lengths were
# not swept.
LEARNING_RATE = 8e-3
SWEEP = (2e-3, 4e-3, 8e-3, 1.6e-2)


def get_config(arg: str = "0"):
    which, _, documents = arg.partition(",")
    seed = 0 if which == "sweep" else int(which)
    c = small.base(f"pruning {which}", seed, documents)
    weights = small.mixture(c)
    c.pruned = small.pruned(weights, documents=documents)
    if which == "sweep":
        arms = [(arm, 5, rate) for arm in ARMS for rate in SWEEP]
        names = [f"{arm}_{1e3 * rate:g}e3" for arm, _, rate in arms]
    else:
        arms = [(arm, percent, LEARNING_RATE) for arm, lengths in ARMS.items() for percent in lengths]
        names = [f"{arm}_{percent}" for arm, percent, _ in arms]
    for name, (arm, percent, rate) in zip(names, arms):
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
    c.stages = ("pruned", *names)
    return c
