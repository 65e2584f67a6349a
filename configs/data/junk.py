"""A classifier of junk that no rule detects: advertisements, machine-translated shops, broken templates.

    kanana quality train --config configs/data/junk.py:GOOD,BAD --output junk
    kanana quality threshold junk/model.bin --input 'GOOD/*.jsonl.gz' --keep 0.99

GOOD and BAD are files, folders or globs of pages; a few dozen bad pages of each kind are enough. Good pages must be as
long as the bad ones and cover every kind that must pass, including texts about the same words. The second command finds
the bound below which a hundredth of good text lies, for a filter's `quality=dict(junk=dict(path='junk/model.bin'))` and
`rules.junk=dict(signal='quality.junk', min=…)`. `benchmarks/false_drops.py --quality` measures how many unseen pages
such a model catches.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "good,bad"):
    good, _, other = arg.partition(",")
    c = ConfigDict()
    c.quality = dict(
        # Character n-grams of length two to five: they match stems of eojeol, and Japanese, which has no spaces.
        classifier=dict(text="word", min_subword=2, max_subword=5, dim=16, buckets=50_000, epochs=30, min_count=1),
        pairs=dict(good=(good,), other=(other or "bad",), documents=100_000, heldout=0.2),
    )
    return c
