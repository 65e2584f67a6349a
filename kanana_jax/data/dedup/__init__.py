"""Duplicates: exact ones by a hash of the text, near ones by MinHash and locality-sensitive hashing.

`local.run` reads documents once and writes a verdict for each, by its id; no text is rewritten. The inline filter looks
the verdicts up (`verdicts.Verdicts`).
"""
