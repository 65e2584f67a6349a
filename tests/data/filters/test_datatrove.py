"""Decisions of datatrove's filters on its own words, recorded by `tests/golden/make_datatrove.py`."""

import collections
import gzip
import importlib.util
import json

import numpy as np
import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.arrays import units
from kanana_jax.data.filters import rules, signals

spec = importlib.util.spec_from_file_location("benchmark_filters", ROOT / "benchmarks/filters.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
# datatrove 0.10.1 takes the most frequent n-gram as repeated also where it occurs once, so that a short document, or one
# of few long words, breaks top_*_gram without any repetition.
ITS_BUG = "top_"


@pytest.fixture(scope="module")
def golden():
    return json.loads(gzip.decompress((ROOT / "tests/golden/datatrove.json.gz").read_bytes()))


def _broken(text, words, config):
    starts, at = [], 0
    for word in words:
        at = text.index(word, at)
        starts.append(at)
        at += len(word)
    starts = np.array(starts, np.int64)
    found = units.Units(starts, starts + np.array([len(w) for w in words], np.int64))
    measured, _ = signals.measure([text], "word", signals.Lexicon(config.stop_words), config.c4, words=found)[0]
    text_rules = {name: rule for name, rule in config.rules.items() if rule.signal in signals.NAMES}
    return rules.broken_rules(text_rules, measured, {}, {})


@pytest.mark.parametrize("name", ["repetition", "quality", "c4", "fineweb"])
def test_decisions_equal_datatroves(golden, name):
    values = config_lib.read_config_file(f"{ROOT}/configs/data/en.py:published").filters.en
    config = config_lib.build(filters.FilterConfig, values, "filters.en")
    seen = collections.Counter()
    for row in golden:
        broken = _broken(row["text"], row["words"], config)
        mine = [rule for rule in broken if rule in benchmark.RULES[name].values()]
        reason = row["reasons"][name]
        seen[reason] += 1
        if reason is None:
            assert not mine, row["text"]
        elif benchmark.RULES[name][reason].startswith(ITS_BUG) and not mine:
            words = row["words"]
            n = int(reason.split("_")[1])
            grams = collections.Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            assert max(grams.values()) == 1, row["text"]
        else:
            assert benchmark.RULES[name][reason] in mine, row["text"]
    assert seen[None] > 20 and len(seen) > 3
