"""The cost of sliding windows to a student: the small chain of `kanana/slm.py:tiny`, with and without windows.

    kanana run --config configs/ablations/windows.py:base --workdir runs/windows/base
    kanana run --config configs/ablations/windows.py:ARM,SEED --workdir runs/windows/ARM-SEED

Arms: `windows` (three of four layers attend to an eighth of a row) and `full` (the same shape with full attention in
every layer). Both are pruned from the base, which is also their teacher.
"""

from kanana_jax.configs.kanana import slm

ARMS, BASE = ("windows", "full"), "runs/windows/base"


def get_config(arg: str = "windows,0"):
    arm, _, seed = arg.partition(",")
    if arm not in (*ARMS, "base"):
        raise ValueError(f"known: base, and the arms {', '.join(ARMS)}")
    c = slm.get_config("tiny")
    c.seed = int(seed or 0)
    if arm == "base":
        c.stages = ("stage1", "stage2")
        return c
    c.stages = ("pruned", "student")
    c.tokenizer = dict(path=f"{BASE}/tokenizer")
    c.pruned.start = c.student.distill.teacher = f"{BASE}/stage2"
    if arm == "full":
        del c.pruned.prune.shape.layer_pattern
    return c
