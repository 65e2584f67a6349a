"""Pages written by hand: good ones about touchy topics are kept; of bad ones rules catch lists, a classifier the rest."""

import collections
import json

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.quality import Classifier, ClassifierConfig, QualityModel
from kanana_jax.data.quality.classifier import OTHER, train
from kanana_jax.data.quality.quality_model import GOOD

LISTS = ("keywords", "link_farm", "gambling")


def _pages(name):
    lines = (ROOT / f"tests/data/filters/{name}_pages.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) | {"source": name} for line in lines]


@pytest.fixture(scope="module")
def verdicts():
    found = {}
    for lang in ("ko", "ja", "en"):
        section = config_lib.read_config_file(str(ROOT / f"configs/data/{lang}.py")).filters[lang]
        judge = filters.Filter(config_lib.build(filters.FilterConfig, section, lang))
        for name in ("good", "bad"):
            own = [page for page in _pages(name) if page["lang"] == lang]
            found |= {(name, p["id"]): (p, v) for p, v in zip(own, judge.judge(own), strict=True)}
    return found


def test_good_pages_about_touchy_topics_are_kept(verdicts):
    assert {key: v.rules for key, (_, v) in verdicts.items() if key[0] == "good" and v.rules} == {}


def test_rules_catch_lists_of_words_and_links(verdicts):
    kinds = collections.Counter(p["kind"] for key, (p, _) in verdicts.items() if key[0] == "bad")
    caught = collections.Counter(p["kind"] for key, (p, v) in verdicts.items() if key[0] == "bad" and v.rules)
    assert sum(kinds.values()) == 60 and all(caught[kind] == kinds[kind] > 1 for kind in LISTS)


def test_a_classifier_of_half_of_the_pages_tells_the_other_half(tmp_path):
    pytest.importorskip("fasttext")
    pages = [*_pages("good"), *_pages("bad")]
    section = config_lib.read_config_file(str(ROOT / "configs/data/junk.py")).quality.classifier
    config = config_lib.build(ClassifierConfig, section, "classifier")
    labels = [GOOD if page["source"] == "good" else OTHER for page in pages]
    path = tmp_path / "junk.bin"
    train([page["text"] for page in pages[::2]] * 3, labels[::2] * 3, config, path)
    scores = Classifier(QualityModel(str(path), config.text, config.max_characters))([p["text"] for p in pages[1::2]])
    good, bad = ([s for s, label in zip(scores, labels[1::2]) if (label == GOOD) == wanted] for wanted in (True, False))
    pairs = [(g > b) + 0.5 * (g == b) for g in good for b in bad]
    assert sum(pairs) / len(pairs) > 0.75  # chance: 0.5
