"""Two-stage pre-training on your own documents (arXiv:2502.18934, §2 and the idea of Figure 2).

    kanana run --config configs/real.py:/path/to/documents --workdir runs/real
    kanana run --config configs/real.py:gs://bucket/documents --workdir gs://bucket/runs/real

The folder, local or in a bucket, holds sub-folders by language (`ko/`, `en/`, `ja/` …), other sub-folders (`code/`,
`reports/`), files of any known kind, or a mixture; `kanana_jax/data/read/folders.py` defines which of them become a
source and how the language is determined.
Stage 1 mixes the languages evenly. Stage 2 anneals with more weight on the sources named in `HIGH_QUALITY`, if there
are any: give such documents a folder of their own (`ko/law/` beside `ko/web/`).

On two CPU cores this takes three quarters of an hour. Everything here can be changed on the command line, e.g.
`--config.stage1.train.tokens=20_000_000 --config.stage1.model.embed_dim=512`.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from kanana_jax.data.read import folders
from kanana_jax.models import presets

VOCAB = 8192
# Sources whose names contain one of these have three times their weight in stage 2.
HIGH_QUALITY = ("law", "python_docs", "rust_book", "books", "d2l")


def get_config(arg: str = "documents"):
    found = folders.groups(arg)
    c = ConfigDict()
    c.name = "real"
    c.seed = 0
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=12_000_000)
    c.sources, sizes = ConfigDict(sort_keys=False), {}
    for name, group in found.items():
        # Translations of one page share the field `doc` and are held out together.
        c.sources[name] = dict(path=group.path, lang=group.lang, among=group.among, holdout=0.02, split_key="doc")
        sizes[name] = group.bytes

    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1, slices=1)
    c.runtime = dict(attention="auto", scan_layers=False)  # only four layers: unrolled runs faster
    c.data = dict(lanes=4, workers="threads")
    c.filters = dict(default=dict(rules=dict(length=dict(signal="characters", min=200.0))))
    c.evaluation = dict(max_bytes=40_000, batch_size=8)
    c.samples = dict(
        prompts=dict(ko=("제1조(목적) 이 법은", "파이썬에서 리스트는"), en=("The function returns", "It was a dark")),
        max_new_tokens=80,
    )
    c.stages = ("stage1", "stage2")
    optimizer = dict(learning_rate=2e-3, weight_decay=1e-4, schedule=dict(kind="multi_step", warmup_steps=100))
    train = dict(
        tokens=5_600_000,
        batch_tokens=4096,
        seq_len=256,
        optimizer=optimizer,
        log_every=10,
        eval_every=100,
        checkpoint=dict(every=100, keep_last=2, keep_best=1),
    )
    c.stage1 = dict(
        kind="pretrain",
        model=presets.tiny(VOCAB, num_layers=4).to_dict(),
        train=train,
        mixture=_balanced(c.sources, sizes, boost=1.0),
    )
    c.stage2 = dict(
        kind="pretrain",
        start="stage1",
        mixture=_balanced(c.sources, sizes, boost=3.0),
        train=train
        | dict(
            tokens=1_400_000,
            optimizer=optimizer | dict(learning_rate=7e-4, schedule=dict(kind="cosine", warmup_steps=20, final=0.05)),
        ),
    )
    return c


def _balanced(sources: ConfigDict, sizes: Mapping[str, float], boost: float) -> dict[str, float]:
    """Source weights: equal for every language; within a language by size, high quality `boost` times heavier."""
    weights = {n: sizes[n] * (boost if any(q in n for q in HIGH_QUALITY) else 1.0) for n in sources}
    langs = sorted({s.lang for s in sources.values()})
    total = {lang: sum(w for n, w in weights.items() if sources[n].lang == lang) for lang in langs}
    return {n: max(round(w / total[sources[n].lang] / len(langs), 6), 1e-6) for n, w in weights.items()}
