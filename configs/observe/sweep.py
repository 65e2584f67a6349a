"""A sweep of small models over parameters × tokens × Korean share.

It asks the observatory's question with known budgets, where arXiv:2412.14471 can only observe published models.

    kanana run --config configs/observe/sweep.py --workdir runs/sweep
    python benchmarks/sweep.py runs/sweep --output runs/sweep/observatory

45 models with one vocabulary. Each of three sizes is trained from scratch on three budgets with four Korean shares; the
English model of the middle budget is then continued on Korean with three more budgets. About an hour and a half on one
core; `sweep.py:4` has four times the tokens (an evening on two cores), `sweep.py:64` is for a GPU.
"""

from typing import Any

from ml_collections import ConfigDict

from kanana_jax.models import presets

VOCAB = 1024
SIZES = {  # 0.12M, 0.26M, 0.49M parameters
    "s": presets.tiny(VOCAB, embed_dim=48, mlp_dim=128, num_layers=3, num_heads=3, num_kv_heads=1, head_dim=16),
    "m": presets.tiny(VOCAB, embed_dim=64, mlp_dim=192, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=16),
    "l": presets.tiny(VOCAB, embed_dim=96, mlp_dim=256, num_layers=4, num_heads=6, num_kv_heads=2, head_dim=16),
}
TOKENS = {"short": 600_000, "middle": 1_200_000, "long": 2_400_000}
# Even the 'English' model reads a little Korean, as a model of the English web would.
SHARES = {"en": 0.01, "en10": 0.1, "even": 0.5, "ko": 0.9}
CONTINUED = {"ko300": 300_000, "ko600": 600_000, "ko1200": 1_200_000}
# A small world, so that its facts are stated often enough to be learnt.
WORLD = 400
KINDS = {"encyclopedia": 0.5, "news": 0.2, "textbook": 0.2, "dialogue": 0.1}
# Share of parallel pages (both languages), the same in every mixture.
PARALLEL = 0.05
RATE = 6e-3


def weights(korean: float) -> dict[str, float]:
    """Source weights; `korean` is the share of Korean in the non-parallel text."""
    mixture = {"ko_parallel": PARALLEL}
    for lang, share in (("ko", korean), ("en", 1 - korean)):
        mixture |= {f"{lang}_{kind}": round((1 - PARALLEL) * share * part, 6) for kind, part in KINDS.items()}
    return mixture


def train(tokens: int, rate: float) -> dict[str, Any]:
    steps = -(-tokens // 4096)
    return dict(
        tokens=tokens,
        batch_tokens=4096,
        seq_len=256,
        optimizer=dict(
            learning_rate=rate,
            weight_decay=1e-4,
            schedule=dict(kind="cosine", warmup_steps=max(10, steps // 50), final=0.05),
        ),
        log_every=50,
        eval_every=steps,
        checkpoint=dict(every=1000, keep_last=1, keep_best=0),
    )


def get_config(scale: str = "1"):
    times = float(scale)
    c = ConfigDict()
    c.name = f"sweep {times:g}"
    c.seed = 0
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=2_000_000)
    c.sources = ConfigDict(sort_keys=False)
    for lang in ("ko", "en"):
        for kind in KINDS:
            path = f"microworld://{kind}/{lang}?size={WORLD}&count=20000"
            c.sources[f"{lang}_{kind}"] = dict(path=path, lang=lang, holdout=0.01)
    path = f"microworld://parallel/ko?size={WORLD}&count=4000"
    c.sources.ko_parallel = dict(path=path, lang="ko", holdout=0.01)
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1)
    c.runtime = dict(attention="auto", scan_layers=False)
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=20_000, batch_size=16)
    c.stages = ()

    def add(name: str, korean: float, tokens: int, rate: float, **start: Any) -> None:
        c[name] = dict(kind="pretrain", mixture=weights(korean), train=train(int(tokens * times), rate), **start)
        c.stages = (*c.stages, name)

    for size, architecture in SIZES.items():
        model = architecture.to_dict()
        for budget, tokens in TOKENS.items():
            for share, korean in SHARES.items():
                add(f"{size}_{budget}_{share}", korean, tokens, RATE, model=model)
        for more, tokens in CONTINUED.items():
            add(f"{size}_middle_en_{more}", SHARES["ko"], tokens, RATE / 2, start=f"{size}_middle_en")
    return c
