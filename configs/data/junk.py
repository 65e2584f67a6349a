"""A filter of pages that no rule tells from good ones: advertisements, machine-translated shops, broken templates.

    kanana quality train --config configs/data/junk.py:GOOD,BAD --output junk
    kanana quality threshold junk/model.bin --input 'GOOD/*.jsonl.gz' --keep 0.99

GOOD and BAD are files, folders or globs of pages; a few dozen bad ones of each kind do. Good ones must be as long as
the bad ones and of the kinds that are to pass, texts about the same words among them. The second command finds the
bound that a hundredth of good text lies below, for a filter's `quality=dict(junk=dict(path='junk/model.bin'))` and
`rules.junk=dict(signal='quality.junk', min=…)`. What such a model catches of pages that it has not seen is measured by
`benchmarks/false_drops.py --quality`.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "good,bad"):
    good, _, other = arg.partition(",")
    c = ConfigDict()
    c.quality = dict(
        # Pieces of two to five characters: eojeol by their stems, and Japanese, which has no spaces, at all.
        classifier=dict(text="word", min_subword=2, max_subword=5, dim=16, buckets=50_000, epochs=30, min_count=1),
        pairs=dict(good=(good,), other=(other or "bad",), documents=100_000, heldout=0.2),
    )
    return c
