"""Code without a permissive licence is dropped, counted like any rule."""

import json

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.data.filters import Filter, FilterConfig, Rule, job
from kanana_jax.data.filters.licences import PERMISSIVE, passes

GOOD = [
    "MIT", "mit", "Apache-2.0", "apache-2.0", "license:bsd-3-clause", "MIT License", "Apache License 2.0", "Apache-2.0+",
    "MIT OR GPL-3.0-only", "(MIT AND BSD-2-Clause) or GPL-2.0-only", "GPL-2.0-or-later or (ISC and 0BSD)", "MIT/Apache-2.0",
    "Apache-2.0 WITH LLVM-exception", "MIT, ISC", ["MIT"], ["MIT", "Apache-2.0 OR GPL-3.0"], {"key": "mit", "spdx_id": "MIT"},
    "GPL-3.0 AND MIT OR ISC", "(((Unlicense)))",
]  # fmt: skip
BAD = [
    "GPL-3.0-only", "AGPL-3.0", "MIT AND GPL-2.0-only", "GPL-2.0-only WITH Classpath-exception-2.0", "NOASSERTION", "NONE",
    "LicenseRef-Proprietary", "", " ", [], ["MIT", "GPL-3.0"], [["MIT"]], {"name": "MIT"}, 3, None, True, "MIT OR", "OR MIT",
    "(MIT", "MIT)", "MIT ISC", "(" * 3000 + "MIT" + ")" * 3000, "MIT WITH", "CC-BY-SA-4.0", "ISC AND (GPL-3.0 OR MPL-2.0)", "()",
]  # fmt: skip


def test_what_suffices():
    assert [x for x in GOOD if not passes({"license": x}, PERMISSIVE)] == []
    assert [x for x in BAD if passes({"licence": x}, PERMISSIVE)] == []
    assert not passes({}, PERMISSIVE) and not passes({"author": "MIT"}, PERMISSIVE)
    assert not passes({"license": "MIT", "licenses": ["GPL-3.0"]}, PERMISSIVE)
    assert passes({"license": "EUPL-1.2"}, ("EUPL-1.2",)) and not passes({"license": "MIT"}, ("EUPL-1.2",))


def test_the_shipped_config_drops_and_counts(tmp_path):
    filters = config_lib.read_config_file(str(ROOT / "configs/data/code.py")).filters
    configs = {key: config_lib.build(FilterConfig, value, key) for key, value in filters.items()}
    rows = [
        {"text": "def f(): pass", "license": "MIT"},
        {"text": "def g(): pass"},
        {"text": "x = 1", "meta": {"licence": "GPL-3.0"}},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = job.run(configs, str(tmp_path / "a.jsonl"), tmp_path / "out")
    assert (report["kept"], report["by_rule"]["licence"]) == (1, {"any": 2, "only": 2, "first": 2})


def test_the_inline_filter_does_the_same_and_a_rule_of_this_name_is_refused():
    judge = Filter(FilterConfig(licences=PERMISSIVE))
    assert judge({"id": "1", "text": "a", "source": "s"}).rules == ("licence",)
    assert judge({"id": "1", "text": "a", "source": "s", "meta": {"license": "isc"}}).rules == ()
    with pytest.raises(ValueError, match="licences"):
        FilterConfig(licences=("MIT",), rules={"licence": Rule("words")})
