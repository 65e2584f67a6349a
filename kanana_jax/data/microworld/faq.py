"""Encyclopedia articles with questions that they answer, in Korean and English, to train answering from documents."""

import random
from typing import Any

from kanana_jax.data.microworld.encyclopedia import entry
from kanana_jax.data.microworld.questions import answer, attributes, worded
from kanana_jax.data.microworld.world import World

KINDS = ("faq",)


def record(world: World, kind: str, lang: str, index: int, rng: random.Random) -> dict[str, Any]:
    """The fields of a record: an article with at least one question; the answers occur in it verbatim."""
    del kind, index  # the generator was seeded with them
    while True:
        sort = rng.choice(("person", "city", "firm"))
        which = rng.randrange(world.count(sort))
        article, stated = entry(world, sort, which, lang, rng)
        asked = [
            {"question": worded(world, sort, which, name, lang, "train", rng).split(": ", 1)[-1], "answer": said}
            for name in attributes(sort)
            if name in stated and (said := answer(world, sort, which, name, lang)) in article
        ]
        if asked:
            rng.shuffle(asked)
            return {"text": article, "meta": {"entity": f"{sort}/{which}", "questions": asked}}
