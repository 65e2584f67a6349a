"""Pruning: width or depth, one shot or iterative, heads early or late, tied or not (arXiv:2502.18934, Tables 16-18).

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher
    kanana run --config configs/ablations/shapes.py:0 --workdir runs/small/shapes/0
    python benchmarks/arms.py runs/small/shapes --stages width depth depth_scattered depth_last both --against width
    python benchmarks/arms.py runs/small/shapes --stages one_shot iterative predecessor --against one_shot
    python benchmarks/arms.py runs/small/shapes --stages heads_early heads_late --against heads_late
    python benchmarks/arms.py runs/small/shapes --stages untied tied --against untied
    python benchmarks/arms.py runs/small/shapes --stages even english --against even

Compared arms have the same number of parameters within 1% (except for tying) and read the same number of tokens in all.
"""

from typing import Any

from kanana_jax.configs.ablations import small

BUDGET = small.TOKENS // 20
HALF = {  # 60% of the teacher's parameters
    "width": dict(embed_dim=72, mlp_dim=192, num_heads=4),
    "depth": dict(num_layers=2),
    "depth_scattered": dict(num_layers=2, layers="scattered"),
    "depth_last": dict(num_layers=2, layers="last"),
    "both": dict(embed_dim=84, mlp_dim=192, num_heads=6, num_layers=3),
}
# Table 16: the intermediate model has 4 heads or still 6, the final one 4. The MLP gets the parameters that heads free.
EARLY, LATE = dict(embed_dim=80, mlp_dim=216, num_heads=4), dict(embed_dim=80, mlp_dim=192, num_heads=6)


def get_config(arg: str = "0"):
    c = small.base(f"shapes {arg}", int(arg))
    mixture = small.mixture(c)
    # Table 18's 'stage 2 en++': three times as much English as Korean.
    english = {name: weight * (1.5 if name.startswith("en") else 0.5) for name, weight in mixture.items()}
    c.stages = ()

    def add(
        name: str,
        start: str,
        shape: dict[str, Any],
        tokens: int,
        weights: dict[str, float] = mixture,
        teacher: str = small.teacher(),
    ) -> None:
        c[f"{name}_pruned"] = small.pruned(mixture, shape, start)
        c[name] = dict(
            kind="distill",
            start=f"{name}_pruned",
            mixture=weights,
            distill=dict(teacher=teacher, dtype="float32"),
            train=small.train(tokens, small.HEALING),
        )
        c.stages = (*c.stages, f"{name}_pruned", name)

    for name, shape in HALF.items():
        add(name, small.teacher(), shape, BUDGET)
    add("one_shot", small.teacher(), small.STUDENT, BUDGET)
    middle = dict(embed_dim=80, mlp_dim=176, num_heads=6)
    add("middle", small.teacher(), middle, BUDGET // 2)
    add("iterative", "middle", small.STUDENT, BUDGET // 2)
    add("predecessor", "middle", small.STUDENT, BUDGET // 2, teacher="middle")
    for name, first in (("heads_early", EARLY), ("heads_late", LATE)):
        add(f"{name}_middle", small.teacher(), first, BUDGET // 2)
        add(name, f"{name}_middle", small.STUDENT, BUDGET // 2)
    c.untied_teacher = dict(
        kind="pretrain",
        mixture=mixture,
        model=small.teacher_shape(1024).to_dict() | dict(tied_embeddings=False),
        train=small.train(small.TOKENS // 3, small.RATE),
    )
    c.stages = (*c.stages, "untied_teacher")
    add("untied", "untied_teacher", small.STUDENT, BUDGET, teacher="untied_teacher")
    add("tied", "untied_teacher", small.STUDENT | dict(tie_embeddings=True), BUDGET, teacher="untied_teacher")
    add("even", small.teacher(), small.STUDENT, BUDGET)
    add("english", small.teacher(), small.STUDENT, BUDGET, weights=english)
    return c
