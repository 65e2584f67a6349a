"""Common parts of the compression ablations: text, vocabulary, a well-trained teacher, and the students' training.

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher
    kanana run --config configs/ablations/small.py:/path/to/documents --workdir runs/small_real/teacher

The teacher (0.49M parameters) sees 20 tokens per parameter of four kinds of embedded documents, half Korean and half
English. Given a folder of documents, it reads those, with a larger vocabulary. All students use the teacher's
vocabulary and read the same text, in an order given by their seed.
"""

import pathlib

from ml_collections import ConfigDict

from kanana_jax.models import presets

KINDS = ("news", "encyclopedia", "dialogue", "textbook")
TOKENS = 10_000_000
RATE = 4e-3
# Students need a higher learning rate: the best of those run of `pruning.py:sweep`, at 5% of the teacher's tokens.
HEALING = 8e-3
# The students' shape: 2/3 of the channels and heads, half of the neurons, 43% of the parameters.
STUDENT = dict(embed_dim=64, mlp_dim=128, num_heads=4)


def teacher_shape(vocab_size: int):
    return presets.tiny(vocab_size, embed_dim=96, mlp_dim=256, num_layers=4, num_heads=6, num_kv_heads=2, head_dim=16)


def folder(documents: str = "") -> str:
    """The parent folder of the workdirs, one for the embedded corpus and one for real documents."""
    return "runs/small_real" if documents else "runs/small"


def teacher(documents: str = "") -> str:
    return f"{folder(documents)}/teacher/stage1"


def base(name: str, seed: int, documents: str = "") -> ConfigDict:
    """Everything but the stages; `mixture(c)` gives the source weights."""
    c = ConfigDict()
    c.name = name
    c.seed = seed
    c.tokenizer = dict(path=f"{folder(documents)}/teacher/tokenizer")
    c.sources = ConfigDict(sort_keys=False)
    if documents:
        for file in sorted(f for lang in ("ko", "en") for f in pathlib.Path(documents, lang).glob("[!.]*")):
            lang = file.parent.name
            path = dict(path=str(file), lang=lang, holdout=0.02, split_key="doc")
            c.sources[f"{lang}_{file.name.split('.')[0]}"] = path
        c.filters = dict(default=dict(rules=dict(length=dict(signal="characters", min=200.0))))
    else:
        for lang in ("ko", "en"):
            for kind in KINDS:
                c.sources[f"{lang}_{kind}"] = dict(
                    path=f"microworld://{kind}/{lang}?count=20000", lang=lang, holdout=0.01
                )
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1)
    c.runtime = dict(attention="auto", scan_layers=False)
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=20_000, batch_size=16)
    return c


def mixture(c: ConfigDict) -> dict[str, float]:
    """Source weights: half per language; within a language, by size for files and equal for the embedded kinds."""
    sizes = {
        n: pathlib.Path(s.path).stat().st_size if pathlib.Path(s.path).is_file() else 1 for n, s in c.sources.items()
    }
    total = {lang: sum(sizes[n] for n, s in c.sources.items() if s.lang == lang) for lang in ("ko", "en")}
    return {n: round(sizes[n] / total[s.lang] / 2, 6) for n, s in c.sources.items()}


def pruned(weights: dict[str, float], shape: dict = STUDENT, start: str = "", documents: str = "") -> dict:
    """A stage that prunes the teacher, or the model `start`."""
    return dict(
        kind="prune",
        start=start or teacher(documents),
        mixture=weights,
        prune=dict(shape=shape, importance=dict(samples=512, batch_size=16), seq_len=256),
    )


def train(tokens: int, learning_rate: float, kind: str = "cosine") -> dict:
    """Training settings. Every length anneals to its own end: no arm is read off in the middle of a longer run."""
    steps = -(-tokens // 4096)
    return dict(
        tokens=tokens,
        batch_tokens=4096,
        seq_len=256,
        optimizer=dict(
            learning_rate=learning_rate,
            weight_decay=1e-4,
            schedule=dict(kind=kind, warmup_steps=max(10, steps // 50), final=0.05),
        ),
        log_every=20,
        eval_every=max(20, -(-steps // 2)),
        checkpoint=dict(every=400, keep_last=1, keep_best=0),
    )


def get_config(documents: str = ""):
    c = base("teacher", 0, documents)
    vocab_size = 4096 if documents else 1024
    c.tokenizer = dict(vocab_size=vocab_size, train_bytes=8_000_000 if documents else 2_000_000)
    c.stages = ("stage1",)
    c.stage1 = dict(
        kind="pretrain",
        model=teacher_shape(vocab_size).to_dict(),
        mixture=mixture(c),
        train=train(TOKENS, RATE),
    )
    return c
