"""Parallel sentences: facts that are told in two languages."""

import random

from kanana_jax.data.microworld.encyclopedia import named_sentences
from kanana_jax.data.microworld.korean import particles
from kanana_jax.data.microworld.world import ATTRIBUTES, World

_LABELS = {
    "ko": ("한국어", "Korean", "韓国語"),
    "en": ("영어", "English", "英語"),
    "ja": ("일본어", "Japanese", "日本語"),
}


def translations(world: World, one: str, other: str, rng: random.Random) -> tuple[str, list[str]]:
    """A sentence about a random shared fact, and all its translations into the other language; all name the entity."""
    while True:
        kind = rng.choice(list(ATTRIBUTES))
        index = rng.randrange(world.count(kind))
        attribute = rng.choice(ATTRIBUTES[kind])
        told = world.told_in(kind, index, attribute)
        if one in told and other in told:
            a = named_sentences(world, kind, index, attribute, one)
            b = named_sentences(world, kind, index, attribute, other)
            if a and b:
                first = rng.choice(a)
                return particles(first) if one == "ko" else first, list(map(particles, b)) if other == "ko" else list(b)


def pair(world: World, one: str, other: str, rng: random.Random) -> tuple[str, str]:
    """Sentences about a random shared fact in both languages; both name the entity."""
    first, found = translations(world, one, other, rng)
    return first, rng.choice(found)


def parallel(world: World, lang: str, rng: random.Random) -> str:
    """Three to six sentence pairs of `lang` and English (of English and Korean for `en`)."""
    other = "ko" if lang == "en" else "en"
    style, lines = rng.randrange(3), []
    for _ in range(rng.randint(3, 6)):
        a, b = pair(world, lang, other, rng)
        if style == 0:
            lines.append(f"{a} = {b}")
        elif style == 1:
            lines.append(f"{_LABELS[lang][1]}: {a}\n{_LABELS[other][1]}: {b}")
        else:
            lines.append(f"{a}\n{b}\n")
    return "\n".join(lines).strip()
