"""Questions with the article that answers each, and one of the same sort that does not."""

import pytest

from kanana_jax.data import microworld
from kanana_jax.data.microworld.encyclopedia import LANG
from kanana_jax.data.microworld.questions import answer

WORLD = microworld.World.create(0, 100)


@pytest.mark.parametrize("lang", ["ko", "en"])
def test_the_article_is_about_the_entity_and_says_the_answer(lang):
    checked = 0
    for record in microworld.documents(WORLD, "retrieval", lang, 60):
        kind, index, attribute = record["meta"]["fact"].split("/")
        name = WORLD.entity(kind, int(index)).name[LANG[lang]]
        assert name in record["anchor"] and name in record["positive"]
        (negative,) = record["negatives"]
        assert name not in negative.split("\n")[0] and negative != record["positive"]
        value = answer(WORLD, kind, int(index), attribute, lang)
        if not value.isdigit():  # numbers are written in several ways
            told = record["positive"].lower()
            assert value.lower() in told or attribute in ("birthday", "hobby"), record
            checked += attribute != "hobby"
        assert record == microworld.document(WORLD, "retrieval", lang, int(record["id"].rpartition("/")[2]))
    assert checked > 10
