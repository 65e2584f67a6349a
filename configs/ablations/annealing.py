"""Selection of stage-2 data by short annealing runs (arXiv:2502.18934, §2.1 and Figure 2), at small scale.

    python benchmarks/parts.py annealing
    python benchmarks/arms.py benchmarks/annealing.jsonl --against whole

The paper selects the high-quality part of every category with classifiers, compares data sets by short annealing runs,
and then ablates parts. It does not state the runs' length or starting checkpoint. Here one model reads a crawl
(`microworld://web`, three of five pages are noise) at a constant learning rate (`stage1`). Every arm continues from it
on pages that stage 1 has not read, while the learning rate falls linearly to 0.

Candidate sets are slices of these pages by the score of `filtering.py`'s classifier, which was trained on curated pages
against the crawl, without labels: `top`, the best fifth; `next`, the second fifth; `rest`, the other three fifths;
`whole`, all pages, as in stage 1. The ablation: `top_ko` and `top_en` use the top slice in one language and all pages
in the other. All arms read the same number of tokens and are evaluated on clean documents that no arm trains on. The
seed determines the order of the pages.
"""

from kanana_jax.configs.ablations import filtering, small
from ml_collections import ConfigDict

VOCAB = 1024
STAGE1 = "runs/annealing/stage1"
PAGES = "count=16000&start=100000"
# Scores that a fifth and two fifths of the pages reach (`kanana quality threshold MODEL --input … --keep 0.2`).
# Labelled clean: 99.6, 94.2 and 2.1% of top, next and rest in Korean; 99.2, 88.3 and 3.4% in English.
FIFTH = dict(ko=0.899496, en=0.835848)
TWO_FIFTHS = dict(ko=0.159978, en=0.166082)
SLICES = ("top", "next", "rest", "whole")
ARMS = {  # arm: slice by language
    **{name: dict(ko=name, en=name) for name in SLICES},
    "top_ko": dict(ko="top", en="whole"),
    "top_en": dict(ko="whole", en="top"),
}
STAGE1_TOKENS = 1_500_000
TOKENS = STAGE1_TOKENS // 10  # the paper's stage 2 is a ninth of its stage 1


def bounds(name: str, lang: str) -> dict[str, float]:
    """The range of quality scores of a slice (`top`, `next` or `rest`)."""
    fifth, two = FIFTH[lang], TWO_FIFTHS[lang]
    return dict(top=dict(min=fifth), next=dict(min=two, max=fifth), rest=dict(max=two))[name]


def get_config(arg: str = "top,0"):
    arm, _, seed = arg.partition(",")
    if arm != "stage1" and arm not in ARMS:
        raise ValueError(f"arms: stage1, {', '.join(ARMS)}")
    c = ConfigDict()
    c.name = f"annealing {arm}"
    c.seed = int(seed or 0)
    c.tokenizer = dict(path=f"{STAGE1}/tokenizer") if arm in ARMS else dict(vocab_size=VOCAB, train_bytes=2_000_000)
    c.sources = ConfigDict(sort_keys=False)
    c.filters = {}
    for lang in ("ko", "en"):
        filtering.add_sources(c, lang, PAGES if arm in ARMS else "count=24000")
        if arm in ARMS and (name := ARMS[arm][lang]) != "whole":
            rules = dict(score=dict(signal="quality.good", **bounds(name, lang)))
            c.filters[f"{lang}_web"] = dict(rules=rules, quality=dict(good=dict(path=filtering.MODEL)))
    filtering.add_small_run(c)
    stage = dict(kind="pretrain", mixture=dict(ko_web=0.5, en_web=0.5))
    if arm in ARMS:
        c.stages = ("annealed",)
        # The optimizer's moments start from zero, hence a few steps of warm-up.
        train = small.train(TOKENS, small.RATE) | dict(eval_every=0)
        train["optimizer"]["schedule"] = dict(kind="wsd", decay=1.0, final=0.0, warmup_steps=5)
        c.annealed = dict(start=f"{STAGE1}/stage1", train=train, **stage)
    else:
        c.stages = ("stage1",)
        train = small.train(STAGE1_TOKENS, small.RATE, "constant")
        c.stage1 = dict(model=small.teacher_shape(VOCAB).to_dict(), train=train, **stage)
    return c
