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


@pytest.mark.parametrize(
    "lang,text",
    [
        ("ko", "{{회원명}} 고객님, {{쇼핑몰}}을 찾아 주셔서 고맙습니다. 예약하신 {{상품}}은 {{날짜}}에 {{주소}}로 보내 드립니다. "
         "{% if 적립금 > 0 %}쌓인 적립금은 {{적립금}}원입니다.{% endif %} 궁금한 점은 {{전화}}로 물어보세요. "),
        ("ja", "{{ お名前 }} 様、{{ 店名 }} でのご予約を承りました。日時は {{ 日時 }}、人数は {{ 人数 }} 名です。"
         "{{#if 備考}}ご要望は {{ 備考 }} と伺っております。{{/if}} 変更は {{ 電話 }} までご連絡ください。"),
        ("en", "Dear {{ member.name }}, your booking at {{hotel}} from {{from}} to {{to}} is confirmed. "
         "{%- if breakfast -%} Breakfast is served from {{ open }} to {{ close }}. {%- endif -%} Call {{phone}} for more. "),
    ],
)  # fmt: skip
def test_a_template_that_nobody_filled_in_falls_and_a_page_about_templates_stays(lang, text, verdicts):
    section = config_lib.read_config_file(str(ROOT / f"configs/data/{lang}.py")).filters[lang]
    judge = filters.Filter(config_lib.build(filters.FilterConfig, section, lang))
    assert "unfilled" in judge({"id": "1", "text": text * 3, "source": "s"}).rules
    good = max((p["text"] for key, (p, _) in verdicts.items() if key[0] == "good" and p["lang"] == lang), key=len)
    about = f"{good}\n\n{{{{ name }}}}, {{% if x %}}.\n\n```\n{text}\n```\n\n$\\frac{{{{a}}}}{{{{b}}}}$"
    assert judge({"id": "2", "text": about, "source": "s"}).rules == ()


@pytest.mark.parametrize(
    "lang,rule,text",
    [
        ("ko", "words", "# 오류 C9\n\n식은 정수여야 합니다. 다음 예제를 컴파일하면 이 오류가 나며, 형식을 바꾸면 사라집니다."),
        ("ja", "length", "# エラー C9\n\n式は整数でなければなりません。次の例をコンパイルすると、このエラーが出ます。"),
        ("en", "words", "# Error C9\n\nThe value must be an integer. You have to change the type of the loop's bound."),
    ],
)  # fmt: skip
def test_few_sentences_beside_code_are_no_short_page(lang, rule, text):
    section = config_lib.read_config_file(str(ROOT / f"configs/data/{lang}.py")).filters[lang]
    judge = filters.Filter(config_lib.build(filters.FilterConfig, section, lang))
    code = '```cpp\nint main() {\n  for (float f = 0; f < 2; ++f)\n    puts("loop");\n  return 0;\n}\n```\n'
    beside = judge({"id": "1", "text": f"{text}\n\n{code * 2}", "source": "s"})
    assert rule not in beside.rules and beside.signals.prose < 0.5
    alone = judge({"id": "2", "text": text, "source": "s"})
    assert rule in alone.rules and alone.signals.prose == 1
