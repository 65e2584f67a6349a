"""The gain from filtering: the same model trained on the same number of tokens of one crawl, filtered in several ways.

    kanana quality train --config configs/ablations/filtering.py:model --output runs/filtering_model
    for arm in unfiltered heuristics quality clean; do for seed in 0 1 2; do
      kanana run --config configs/ablations/filtering.py:$arm,$seed --workdir runs/filtering/$arm-$seed
    done; done; python benchmarks/arms.py runs/filtering --against unfiltered

Three of five pages of the crawl (`microworld://web`) are noise. Arms: `unfiltered`, all pages; `heuristics`, the pages
that pass `RULES`; `quality`, those of them that a classifier of curated pages against the crawl calls good (as in
DCLM); `clean`, the pages labelled clean. `english` and `korean` keep the pages labelled clean in one language and all
pages in the other: does better English text help Korean (arXiv:2502.18934, Table 2)? All arms are evaluated on clean
documents that no arm trains on.
"""

from ml_collections import ConfigDict

from kanana_jax.models import presets

VOCAB = 2048
CLEAN = ("encyclopedia", "news", "textbook", "dialogue")
# Bounds that 99% of the clean pages of a world with another seed pass (`kanana filter --signals` prints the signals).
RULES = {
    "duplicate_lines": dict(max=0.01),
    "line_punctuation": dict(min=0.5),
    "duplicate_5_gram": dict(max=0.14),
    "symbols": dict(max=0.19),
    "different_words": dict(min=0.42, max=0.92),
    "upper": dict(max=0.15),
}


MODEL = "runs/filtering_model/model.bin"
# Chosen so that, of the pages that pass the heuristics, about as many pass as are clean (average precision against the
# labels: 0.998 and 1.000 in the two languages).
KEEP_ABOVE = 0.05


def quality_model():
    """The config of the quality classifier: curated pages against the crawl, on pages that no arm reads."""
    c = ConfigDict()
    c.quality = dict(
        classifier=dict(word_ngrams=3, dim=32, buckets=500_000, epochs=10),
        pairs=dict(
            good=tuple(f"microworld://{kind}/{lang}?count=1500&start=80000" for kind in CLEAN for lang in ("ko", "en")),
            other=tuple(f"microworld://web/{lang}?count=6000&start=80000" for lang in ("ko", "en")),
        ),
    )
    return c


def add_sources(c: ConfigDict, lang: str, pages: str) -> None:
    """Adds the crawl's pages in one language, all for training, and clean documents of each kind, 90% held out."""
    c.sources[f"{lang}_web"] = dict(path=f"microworld://web/{lang}?{pages}", lang=lang, holdout=0.0)
    for kind in CLEAN:
        path = f"microworld://{kind}/{lang}?count=300&start=50000"
        c.sources[f"{lang}_{kind}"] = dict(path=path, lang=lang, holdout=0.9)


def add_small_run(c: ConfigDict) -> None:
    """Adds the mesh, runtime, data and evaluation settings of a small run on a few CPU cores."""
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1)
    c.runtime = dict(attention="auto", scan_layers=False)
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=20_000, batch_size=16)


def get_config(arg: str = "heuristics,0"):
    arm, _, seed = arg.partition(",")
    if arm == "model":
        return quality_model()
    heuristics = {name: dict(signal=name, **bounds) for name, bounds in RULES.items()}
    quality = dict(quality=dict(signal="quality.good", min=KEEP_ABOVE))
    clean = dict(rules=dict(clean=dict(signal="meta.clean", min=1.0)))
    filters = {  # by language
        "unfiltered": {},
        "heuristics": dict.fromkeys(("ko", "en"), dict(rules=heuristics)),
        "quality": dict.fromkeys(("ko", "en"), dict(rules=heuristics | quality, quality=dict(good=dict(path=MODEL)))),
        "clean": dict(ko=clean, en=clean),
        "english": dict(en=clean),
        "korean": dict(ko=clean),
    }
    if arm not in filters:
        raise ValueError(f"arms: {', '.join(filters)}")
    c = ConfigDict()
    c.name = f"filtering {arm}"
    c.seed = int(seed or 0)
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=2_000_000)
    c.sources = ConfigDict(sort_keys=False)
    c.filters = {}
    for lang in ("ko", "en"):
        add_sources(c, lang, "count=24000")
        if lang in filters[arm]:
            c.filters[f"{lang}_web"] = filters[arm][lang]
    add_small_run(c)
    c.stages = ("stage1",)
    optimizer = dict(learning_rate=4e-3, weight_decay=1e-4, schedule=dict(kind="multi_step", warmup_steps=30))
    c.stage1 = dict(
        kind="pretrain",
        model=presets.tiny(VOCAB, embed_dim=128, mlp_dim=384, num_layers=4, num_heads=4, num_kv_heads=2).to_dict(),
        mixture=dict(ko_web=0.5, en_web=0.5),
        train=dict(
            tokens=1_000_000,
            batch_tokens=4096,
            seq_len=256,
            optimizer=optimizer,
            log_every=20,
            eval_every=80,
            checkpoint=dict(every=80, keep_last=1, keep_best=0),
        ),
    )
    return c
