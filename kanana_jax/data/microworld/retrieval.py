"""Questions about the world with the articles that answer them, in Korean and English, to train retrieval."""

import random
from typing import Any

from kanana_jax.data.microworld.encyclopedia import entry
from kanana_jax.data.microworld.questions import fact, worded
from kanana_jax.data.microworld.world import World

KINDS = ("retrieval",)


def record(world: World, kind: str, lang: str, index: int, rng: random.Random) -> dict[str, Any]:
    """The fields of a record: a question (`anchor`), its article, and an article about another entity of the kind."""
    del kind, index  # the generator was seeded with them
    while True:
        sort, which, attribute = fact(world, lang, rng)
        article, stated = entry(world, sort, which, lang, rng)
        if attribute in stated:  # articles leave out some facts
            break
    other = (which + rng.randrange(1, world.count(sort))) % world.count(sort)
    asked = worded(world, sort, which, attribute, lang, "train", rng)
    return {
        "anchor": asked.removeprefix("질문: ").removeprefix("Question: "),
        "positive": article,
        "negatives": [entry(world, sort, other, lang, rng)[0]],
        "text": f"{asked}\n\n{article}",
        "meta": {"fact": f"{sort}/{which}/{attribute}"},
    }
