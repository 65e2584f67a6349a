"""The chain of small models at a middle scale (arXiv:2502.18934, §2.3, Table 5), for one GPU.

    kanana run --config configs/ablations/chain.py --workdir runs/chain                (the embedded corpus)
    kanana run --config configs/ablations/chain.py:/path/to/documents --workdir runs/chain

54M → 34M → 17M (tied embeddings) → 9M → 5M. Each model is pruned in width from the model before it, and all are
distilled from the 54M on a tenth of its tokens. `scratch_middle` trains the 17M from scratch on as many tokens as the
teacher, the comparison of Table 5. On CPUs add `--config.runtime.compute_dtype=float32` and fewer tokens
(`--config.teacher.train.tokens=50_000_000` …).
"""

from typing import Any

from kanana_jax.configs.ablations import small

from kanana_jax.models.architecture import Architecture

VOCAB = 16_384
TOKENS = 1_200_000_000
CHAIN = {
    "large": dict(embed_dim=384, mlp_dim=1024, num_heads=8),
    "middle": dict(embed_dim=256, mlp_dim=832, num_heads=8, tie_embeddings=True),
    "small": dict(embed_dim=192, mlp_dim=576, num_heads=4),
    "smallest": dict(embed_dim=128, mlp_dim=320, num_heads=4),
}


def get_config(documents: str = ""):
    c = small.base("chain", 0, documents)
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=50_000_000)
    if not documents:
        for source in c.sources.values():
            source.path = source.path.replace("count=20000", "count=400000")
    c.runtime = dict(attention="auto", compute_dtype="bfloat16", scan_layers=True)
    c.data = dict(lanes=8, workers="processes")
    c.evaluation = dict(max_bytes=200_000, batch_size=32)
    mixture = small.mixture(c)

    def train(tokens: int, learning_rate: float) -> dict[str, Any]:
        return dict(
            tokens=tokens,
            batch_tokens=131_072,
            seq_len=1024,
            optimizer=dict(
                learning_rate=learning_rate,
                weight_decay=1e-4,
                schedule=dict(kind="cosine", warmup_steps=100, final=0.0),
            ),
            eval_every=200,
            checkpoint=dict(every=500, keep_last=2, keep_best=0),
        )

    model = Architecture(VOCAB, 512, 1536, 12, 8, 4, 64, max_seq_len=1024, rope_theta=10_000.0)
    c.teacher = dict(kind="pretrain", mixture=mixture, model=model.to_dict(), train=train(TOKENS, 2e-3))
    c.stages, start = ("teacher",), "teacher"
    for name, shape in CHAIN.items():
        c[f"{name}_pruned"] = dict(
            kind="prune",
            start=start,
            mixture=mixture,
            prune=dict(shape=shape, importance=dict(samples=1024, batch_size=64), seq_len=1024),
        )
        c[name] = dict(
            kind="distill",
            start=f"{name}_pruned",
            mixture=mixture,
            distill=dict(teacher="teacher"),
            train=train(TOKENS // 10, 1e-3),
        )
        c.stages, start = (*c.stages, f"{name}_pruned", name), name
    sizes = {key: value for key, value in CHAIN["middle"].items() if key != "tie_embeddings"}
    shape = model.to_dict() | sizes | dict(tied_embeddings=True)
    c.scratch_middle = dict(kind="pretrain", mixture=mixture, model=shape, train=train(TOKENS, 2e-3))
    c.stages = (*c.stages, "scratch_middle")
    return c
