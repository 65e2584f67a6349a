"""The gain from filtering real Korean text, half of which is comments, reviews, petitions and statutes.

    python benchmarks/quality.py --data DATA --output runs/real_pool --pool 12000 --good 6000 --pool-only
    python benchmarks/quality.py --data DATA --output runs/edu
    for arm in unfiltered heuristics quality edu clean; do for seed in 0 1 2; do
      kanana run --config configs/ablations/filtering_real.py:$arm,$seed,DATA --workdir runs/filtering_real/$arm-$seed
    done; done
    python benchmarks/arms.py runs/filtering_real --against unfiltered --metric source/react source/hf source/web

DATA holds `pretrain/ko/{react_docs,hf_course}.ko.jsonl.gz`. Every arm trains the same model on the same number of
tokens. Arms: `unfiltered`, all pages; `heuristics`, the pages that `configs/data/ko.py` keeps; `quality`, the pages of
`heuristics` that the last round's edu filter keeps; `edu`, the edu filter alone; `clean`, the pages labelled good.
Evaluated on documentation from sources that no arm trains on, and on the unfiltered crawl, where filtering may cost.
"""

from kanana_jax.configs.data import ko
from ml_collections import ConfigDict

from kanana_jax.models import presets

VOCAB = 4096
POOL = "runs/real_pool/pool.jsonl.gz"
MODEL = "runs/edu/first/round3/model.bin"


def get_config(arg: str = "heuristics,0,data"):
    arm, _, rest = arg.partition(",")
    seed, _, data = rest.partition(",")
    heuristics = ko.get_config().filters.ko.to_dict()
    edu = dict(quality=dict(edu=dict(path=MODEL)), rules=dict(edu=dict(signal="quality.edu", min=0.5)))
    quality = heuristics | edu | dict(rules=heuristics["rules"] | edu["rules"])
    filters = {
        "unfiltered": {},
        "heuristics": dict(web=heuristics),
        "quality": dict(web=quality),
        "edu": dict(web=edu),
        "clean": dict(web=dict(rules=dict(label=dict(signal="meta.label", min=3.0)))),
    }
    if arm not in filters:
        raise ValueError(f"arms: {', '.join(filters)}")
    c = ConfigDict()
    c.name = f"filtering real text {arm}"
    c.seed = int(seed or 0)
    # All arms share one vocabulary, trained on clean and other text.
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=8_000_000)
    c.filters = filters[arm]
    c.sources = ConfigDict(sort_keys=False)
    c.sources.web = dict(path=POOL, lang="ko", holdout=0.02)
    for name in ("react_docs", "hf_course"):
        path = f"{data or 'data'}/pretrain/ko/{name}.ko.jsonl.gz"
        c.sources[name.partition("_")[0]] = dict(path=path, lang="ko", holdout=0.9)
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1)
    c.runtime = dict(attention="auto", scan_layers=False)
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=100_000, batch_size=16)
    c.stages = ("stage1",)
    optimizer = dict(learning_rate=4e-3, weight_decay=1e-4, schedule=dict(kind="multi_step", warmup_steps=30))
    c.stage1 = dict(
        kind="pretrain",
        model=presets.tiny(VOCAB, embed_dim=128, mlp_dim=384, num_layers=4, num_heads=4, num_kv_heads=2).to_dict(),
        mixture=dict(web=1.0),
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
