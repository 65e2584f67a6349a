"""What sliding windows cost a student: the small chain of `kanana/slm.py:tiny`, with its windows and without.

    kanana run --config configs/ablations/windows.py:ARM,SEED --workdir runs/windows/ARM-SEED

Arms: `windows` (three of four layers see an eighth of a row), `full` (the same cut, every layer sees everything).
"""

from kanana_jax.configs.kanana import slm

ARMS = ("windows", "full")


def get_config(arg: str = "windows,0"):
    arm, _, seed = arg.partition(",")
    if arm not in ARMS:
        raise ValueError(f"known arms: {', '.join(ARMS)}")
    c = slm.get_config("tiny")
    c.seed = int(seed or 0)
    if arm == "full":
        del c.pruned.prune.shape.layer_pattern
    return c
