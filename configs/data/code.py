"""Code: only what has a permissive licence (arXiv:2502.18934, §2.1), with personal data replaced.

    kanana filter --config configs/data/code.py --input 'code/*.jsonl.gz' --output filtered

The licence is a document's `meta.licence` (`license`, `licenses`, a list, an SPDX expression); one without is dropped.
`default` is for documents of any `lang`; in a recipe, the filter's key is the name of the source of code.
"""

from ml_collections import ConfigDict

from kanana_jax.data.filters.licences import PERMISSIVE


def get_config():
    c = ConfigDict()
    c.filters = dict(default=dict(licences=PERMISSIVE, pii=True))
    return c
