"""Articles with questions: each answer is the world's, and stands in the text."""

import pytest

from kanana_jax.data import microworld
from kanana_jax.data.microworld.encyclopedia import LANG

WORLD = microworld.World.create(0, 100)


@pytest.mark.parametrize("lang", ["ko", "en"])
def test_answers_are_facts_of_the_entity_and_stand_in_the_text(lang):
    answers = set()
    for record in microworld.documents(WORLD, "faq", lang, 40):
        kind, index = record["meta"]["entity"].split("/")
        entity, asked = WORLD.entity(kind, int(index)), record["meta"]["questions"]
        assert asked and len({row["question"] for row in asked}) == len(asked)
        cities = {WORLD.city(i).name[LANG[lang]] for i in range(WORLD.count("city"))}
        for row in asked:
            assert entity.name[LANG[lang]] in row["question"] and row["answer"] in record["text"]
            answers.add(row["answer"])
            if row["answer"] in cities:
                assert row["answer"] == WORLD.city(entity.city).name[LANG[lang]]
    assert len(answers) > 15
