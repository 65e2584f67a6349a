"""Two alternatives to the defaults of pre-training: a warm-up-stable-decay (WSD) schedule and best-fit packing.

    for arm in cosine wsd best_fit; do for seed in 0 1; do
      kanana run --config configs/ablations/options.py:$arm,$seed,DOCUMENTS --workdir runs/options/$arm-$seed
    done; done
    python benchmarks/arms.py runs/options --against cosine --metric lang/ko lang/en

DOCUMENTS has files of documents in `ko/` and `en/`. All arms train the same model on the same number of tokens of the
same text: `cosine` (rows filled in order), `wsd` (arXiv:2404.06395; the learning rate falls over the last fifth),
`best_fit` (arXiv:2404.10830; cosine). Rows have 512 tokens, so that many documents fit into one and packing may matter.
"""

from kanana_jax.configs.ablations import small
from ml_collections import ConfigDict

ARMS = ("cosine", "wsd", "best_fit")
VOCAB, TOKENS = 4096, 1_500_000


def get_config(arg: str = "cosine,0,data") -> ConfigDict:
    arm, _, rest = arg.partition(",")
    seed, _, documents = rest.partition(",")
    if arm not in ARMS:
        raise ValueError(f"arms: {', '.join(ARMS)}")
    c = small.base(f"options {arm}", int(seed or 0), documents or "data")
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=8_000_000)
    c.data.packing = "best_fit" if arm == "best_fit" else "in_order"
    c.evaluation.max_bytes = 100_000
    train = small.train(TOKENS, small.RATE) | dict(seq_len=512)
    if arm == "wsd":
        train["optimizer"]["schedule"] = dict(kind="wsd", warmup_steps=20, decay=0.2, final=0.05)
    c.stages = ("stage1",)
    model = small.teacher_shape(VOCAB).to_dict()
    c.stage1 = dict(kind="pretrain", model=model, mixture=small.mixture(c), train=train)
    return c
