"""Fitted thresholds pass as much of one language as the English ones pass of English."""

import json

import numpy as np
import pytest
from conftest import ROOT

from kanana_jax import cli
from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.filters import fitting
from kanana_jax.data.filters.signals import NAMES
from kanana_jax.errors import UserError

WORDS, TOP = NAMES.index("mean_word_length"), NAMES.index("top_2_gram")


def _table(seed, rows, scale):
    rng = np.random.default_rng(seed)
    table = np.zeros((rows, len(NAMES)))
    table[:, WORDS] = rng.normal(5, 1, rows) * scale
    table[:, TOP] = rng.uniform(0, 0.3, rows) * scale
    return table


def test_the_same_share_passes():
    rules = {"length": filters.Rule("mean_word_length", 4, 6.5), "top": filters.Rule("top_2_gram", max=0.2)}
    english, other = _table(0, 4000, 1.0), _table(1, 3000, 0.6)
    fitted, unfit = fitting.fit(rules, english, other)
    before, after = fitting.passing(rules, english), fitting.passing(fitted, other)
    assert unfit == ()
    for name in ("length", "top", "all"):
        assert after[name] == pytest.approx(before[name], abs=0.03)
    assert fitted["top"].max == pytest.approx(0.12, abs=0.01)


def test_bounds_that_say_nothing_stay_or_go_outward():
    english, other = _table(0, 1000, 1.0), _table(1, 1000, 0.6)
    everything = {"length": filters.Rule("mean_word_length", 0.5, 100)}
    assert fitting.fit(everything, english, other)[0] == everything
    nothing = {"length": filters.Rule("mean_word_length", min=50)}
    assert fitting.fit(nothing, english, other) == ({}, ("length",))
    loose = {"length": filters.Rule("mean_word_length", min=1.9)}
    assert fitting.fit(loose, english, other)[0]["length"].min < 1.9 < np.quantile(english[:, WORDS], 0.005)


def test_every_kind_of_text_sets_the_bounds():
    rules = {"length": filters.Rule("mean_word_length", 4, 6.5), "lines": filters.Rule("top_2_gram", max=0.2)}
    own = {"own": filters.Rule("hangul", min=0.3), "asked": filters.Rule("jamo", max=0.0, where={"lines": 5.0})}
    english, kinds = _table(0, 2000, 1.0), {"a": _table(1, 1000, 0.6), "b": _table(2, 500, 1.4)}
    hangul, jamo, lines = (NAMES.index(name) for name in ("hangul", "jamo", "lines"))
    for table in kinds.values():
        table[:, hangul] = 0.5
    kinds["a"][0, hangul] = 0.0  # one odd document
    kinds["b"][:25, hangul] = 0.2
    kinds["b"][:, jamo], kinds["b"][:30, lines] = 0.7, 9
    kinds["b"][:30, jamo] = 0.1
    made = fitting.document(rules, own, {"lines": rules["lines"]}, english, kinds, "here")
    assert made["provenance"]["not_fitted"] == ["lines"] and "lines" not in made["rules"]
    assert made["rules"]["own"] == {"min": 0.2} and made["rules"]["asked"] == {"max": 0.1}
    alone = [fitting.fit(rules, english, table)[0]["length"] for table in kinds.values()]
    assert made["rules"]["length"] == {"min": alone[0].min, "max": alone[1].max}
    assert made["provenance"]["kinds"] == {"a": 1000, "b": 500}


def test_too_little_text():
    with pytest.raises(UserError, match="target reference has 20 documents"):
        fitting.fit({}, _table(0, 300, 1), _table(0, 20, 1))


def test_the_command(tmp_path):
    rng = np.random.default_rng(0)
    for lang, letters in (("en", "etaoinshr"), ("ko", "가나다라마바사아자")):
        lines = []
        for i in range(220):
            words = ["".join(rng.choice(list(letters), rng.integers(1, 9))) for _ in range(rng.integers(60, 200))]
            lines.append(json.dumps({"id": str(i), "text": " ".join(words) + "."}))
        (tmp_path / f"{lang}.jsonl").write_text("\n".join(lines))
    arguments = ["thresholds", "--english-config", str(ROOT / "configs/data/en.py")]
    arguments += ["--english", str(tmp_path / "en.jsonl"), "--config", str(ROOT / "configs/data/ko.py")]
    arguments += ["--lang", "ko", "--input", str(tmp_path / "ko.jsonl"), "--output", str(tmp_path / "out.json")]
    assert cli.main(arguments) == 0
    made = json.loads((tmp_path / "out.json").read_text())
    assert made["provenance"]["documents"] == {"english": 220, "target": 220}
    assert set(made["rules"]) | set(made["provenance"]["not_fitted"]) > {"words", "top_2_gram"}


@pytest.mark.parametrize("lang", ["en", "ko", "ja"])
def test_shipped_configs_build_and_carry_their_provenance(lang):
    section = config_lib.read_config_file(str(ROOT / f"configs/data/{lang}.py")).filters[lang]
    config = config_lib.build(filters.FilterConfig, section, lang)
    assert len(config.rules) > 15
    made = json.loads((ROOT / f"configs/data/{lang}_thresholds.json").read_text())
    assert made["provenance"]["documents"]["target"] > 500 and len(made["provenance"]["kinds"]) > 2
    for name, bounds in made["rules"].items():
        assert all(getattr(config.rules[name], end) == value for end, value in bounds.items())
    assert set(made["rules"]) < set(config.rules)
