"""An English quality classifier in the manner of DCLM (arXiv:2406.11794, §4.4): instructive text against the web.

    kanana quality train --config configs/data/pairs_en.py:good,web --output dclm
    kanana quality threshold dclm/model.bin --input 'web/*.jsonl.gz' --keep 0.1

DCLM's positive examples are OpenHermes-2.5 and ELI5, its negative examples RefinedWeb, 200k each; it keeps the top
tenth. To use DCLM's own model (`openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin`), set
`quality=dict(dclm=dict(path='…', text='raw', max_characters=0, label='__label__hq'))` with the threshold 0.018112.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "good,web"):
    good, _, other = arg.partition(",")
    c = ConfigDict()
    c.quality = dict(
        classifier=dict(text="word", word_ngrams=2),
        pairs=dict(good=(good,), other=(other or "web",), documents=200_000, heldout=0.05),
    )
    return c
