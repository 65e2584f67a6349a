"""The embedded world: deterministic, consistent, correct Korean, correct arithmetic and code."""

import doctest
import hashlib
import re
import subprocess
import sys

import pytest

from kanana_jax.data.microworld import (
    KINDS,
    LANGUAGES,
    World,
    document,
    documents,
    encyclopedia,
    korean,
    parse_uri,
    questions,
)
from kanana_jax.data.microworld.world import ATTRIBUTES
from kanana_jax.errors import UserError

WORLD = World.create(0, 400)


@pytest.mark.parametrize(
    "text, want",
    [
        ("사과<은>", "사과는"),
        ("밥<은>", "밥은"),
        ("물<으로>", "물로"),
        ("집<으로>", "집으로"),
        ("길<을>", "길을"),
        ("나<과>", "나와"),
        ("3<이>", "3이"),
        ("2<이>", "2가"),
        ("7<으로>", "7로"),
        ("10<으로>", "10으로"),
        ("9<을>", "9를"),
        ("100<과>", "100과"),
        ("1<은>", "1은"),
        ("Seoul<으로>", "Seoul로"),
        ("Kim<이>", "Kim이"),
        ("Lee<이>", "Lee가"),
        ("values<을>", "values를"),
        ("한빛시(Hanbit City)<은>", "한빛시(Hanbit City)는"),
        ('"책"<을>', '"책"을'),
        ("의사<이다>", "의사다"),
        ("시인<이다>", "시인이다"),
        ("배<이며> 밤<이고>", "배며 밤이고"),
    ],
)
def test_particles_follow_the_sound(text, want):
    assert korean.particles(text) == want


def test_no_particle_mark_is_left_and_every_document_differs():
    for kind in KINDS:
        for lang in LANGUAGES:
            texts = [d["text"] for d in documents(WORLD, kind, lang, 200)]
            assert not any(re.search("<[가-힣]+>", t) for t in texts)
            if kind not in ("noise", "code"):
                assert len(set(texts)) >= 199


def test_documents_are_the_same_in_another_process():
    ids = [(kind, lang, index) for kind in KINDS for lang in LANGUAGES for index in (0, 17)]
    here = hashlib.sha256("".join(document(WORLD, *i)["text"] for i in ids).encode()).hexdigest()
    program = (
        "import hashlib; from kanana_jax.data.microworld import *; w = World.create(0, 400); "
        f"print(hashlib.sha256(''.join(document(w, *i)['text'] for i in {ids!r}).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "5", "PYTHONPATH": ":".join(sys.path)},
    )
    assert there.stdout.strip() == here


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sum_in_the_textbook_is_right(lang):
    checked = 0
    for d in documents(WORLD, "textbook", lang, 300):
        for left, right in re.findall(r"([\d ×÷+\-]+) = (\d+)", d["text"]):
            assert eval(left.replace("×", "*").replace("÷", "/")) == int(right), d["text"]  # digits and signs alone
            checked += 1
    assert checked > 300


@pytest.mark.parametrize("lang", ["ko", "en"])
def test_all_code_does_what_its_docstring_says(lang):
    for d in documents(WORLD, "code", lang, 120):
        names: dict = {}
        exec(compile(d["text"], "document", "exec"), names)
        finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
        for function in [v for k, v in names.items() if callable(v) and k != "__builtins__"]:
            for test in finder.find(function, globs=names, module=False):
                assert runner.run(test).failed == 0, d["text"]


def test_a_fact_is_told_only_in_its_languages():
    for lang in ("ko", "en"):
        text = "\n".join(
            d["text"]
            for kind in ("encyclopedia", "news", "dialogue", "parallel")
            for d in documents(WORLD, kind, lang, 400)
        )
        hidden = 0
        for kind, attribute in (("firm", "founder"), ("city", "crop"), ("person", "job"), ("person", "birthplace")):
            assert attribute in ATTRIBUTES[kind]
            for index in range(WORLD.count(kind)):
                if lang not in WORLD.told_in(kind, index, attribute):
                    hidden += 1
                    for sentence in encyclopedia.named_sentences(WORLD, kind, index, attribute, lang):
                        assert korean.particles(sentence) not in text
        assert hidden > 100


def test_both_languages_tell_the_same_birthday():
    found = 0
    for index in range(100):
        ko, en = document(WORLD, "encyclopedia", "ko", index), document(WORLD, "encyclopedia", "en", index)
        a, b = re.search(r"(\d{4})년 \d+월 \d+일", ko["text"]), re.search(r"(?:\w+ \d+, |\d+ \w+ )(\d{4})", en["text"])
        if "birth" in ko["meta"].get("facts", ()) and "birth" in en["meta"].get("facts", ()):
            assert ko["meta"]["entity"] == en["meta"]["entity"] and a[1] == b[1]
            found += 1
    assert found > 10


def test_names_are_unique():
    for kind in ("city", "firm"):
        names = [WORLD.entity(kind, i).name[0] for i in range(WORLD.count(kind))]
        assert len({n[:2] for n in names}) == len(names)


def test_questions_have_answers_and_heldout_wordings():
    train, heldout = questions(WORLD, "train", 30), questions(WORLD, "heldout", 30)
    for q in heldout:
        assert q["answer"] and (not q["choices"] or q["answer"] in q["choices"])
        if q["task"].startswith("fact/transfer"):
            assert q["lang"] not in q["told_in"] and q["told_in"]
    assert {q["task"] for q in train} == {q["task"] for q in heldout}
    text = "\n".join(d["text"] for kind in KINDS for d in documents(WORLD, kind, "ko", 200))
    assert not any(q["question"] in text for q in heldout if q["task"].startswith("fact"))


@pytest.mark.parametrize(
    "uri",
    [
        "microworld://poem/ko",
        "microworld://news/fr",
        "microworld://news/ko?sead=1",
        "microworld://news/ko?seed=x",
        "microworld://news/ko?size=3",
    ],
)
def test_bad_addresses(uri):
    with pytest.raises(UserError, match="microworld://"):
        list(parse_uri(uri))


def test_stated_questions_are_sentences_of_articles_to_be_finished():
    seen = set()
    for q in questions(WORLD, "stated", 200):
        if not q["fact_id"]:
            continue
        kind, index, attribute = q["fact_id"].split("/")
        known = [korean.particles(s) if q["lang"] == "ko" else s for s in
                 encyclopedia.fact_sentences(WORLD, kind, int(index), attribute, q["lang"])]  # fmt: skip
        sentence = f"{q['question']} {q['answer']}"
        assert any(sentence.endswith(s) for s in known), sentence
        assert q["answer"] in q["choices"] and len(set(q["choices"])) == 4
        seen.add((kind, attribute, q["lang"]))
    assert len(seen) == 20
