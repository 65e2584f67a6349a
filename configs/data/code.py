"""The filter for code: permissive licences only (arXiv:2502.18934, §2.1), with personal data replaced.

    kanana filter --config configs/data/code.py --input 'code/*.jsonl.gz' --output filtered

A document's licence is read from `meta.licence` (also `license` or `licenses`; a string, a list or an SPDX expression);
a document without a licence is dropped. The filter `default` applies to documents of any `lang`; in a recipe, name the
filter after the source that holds code.
"""

from ml_collections import ConfigDict

from kanana_jax.data.filters.licences import PERMISSIVE


def get_config():
    c = ConfigDict()
    c.filters = dict(default=dict(licences=PERMISSIVE, pii=True))
    return c
