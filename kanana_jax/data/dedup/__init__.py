"""Deduplication: exact duplicates by a hash of the text, near duplicates by MinHash and locality-sensitive hashing.

`local.run` reads documents once and writes a verdict for each; no text is rewritten. During training, the data filter
looks the verdicts up (`verdicts.Verdicts`).
"""
