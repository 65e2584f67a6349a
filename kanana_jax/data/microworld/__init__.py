"""The embedded corpus: documents about a small, consistent, synthetic world in Korean, English and Japanese.

    microworld://news/ko?seed=0&size=4000&count=6000

Text kinds: encyclopedia, news, textbook, dialogue, code, parallel, noise (web noise, labelled in `meta`) and web (a
crawl of which three in five pages are noise, labelled in `meta.clean`). In Korean and English there are also chat,
pairs and prompts (conversations, preference pairs, and prompts with a verifier; `chat-facts` is one domain of chat),
calls (conversations with function calls; `calls-slot` is one domain), retrieval (questions with the articles that
answer them) and faq (articles with questions, in `meta.questions`). A document depends only on the world's seed and
size, the kind, the language and its index.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kanana_jax import languages
from kanana_jax.data.microworld import calls, conversations, encyclopedia, faq, noise, parallel, prose, retrieval
from kanana_jax.data.microworld import code as code_lib
from kanana_jax.data.microworld.questions import questions
from kanana_jax.data.microworld.world import World, stable_random
from kanana_jax.errors import UserError, nearest

__all__ = ["KINDS", "LANGUAGES", "World", "document", "documents", "parse_uri", "problems", "questions"]

LANGUAGES = ("ko", "en", "ja")


def _encyclopedia(world: World, lang: str, index: int, rng: random.Random) -> tuple[str, dict[str, Any]]:
    kinds = ["person"] * 10 + ["firm"] + ["city"]
    kind = kinds[index % len(kinds)]
    which = (index // len(kinds) * kinds.count(kind) + index % len(kinds) % kinds.count(kind)) % world.count(kind)
    text, stated = encyclopedia.entry(world, kind, which, lang, rng)
    return text, {"entity": f"{kind}/{which}", "facts": stated}


def _noise(world: World, lang: str, index: int, rng: random.Random) -> tuple[str, dict[str, Any]]:
    kind = rng.choice(noise.KINDS)
    return noise.noise(world, lang, rng, kind), {"noise": kind}


def _web(world: World, lang: str, index: int, rng: random.Random) -> tuple[str, dict[str, Any]]:
    if rng.random() < 0.6:
        text, meta = _noise(world, lang, index, rng)
        return text, {**meta, "clean": 0}
    text, meta = _MAKERS[rng.choice(("encyclopedia", "news", "textbook", "dialogue"))](world, lang, index, rng)
    return text, {**meta, "clean": 1}


def _plain(make: Callable[..., str]) -> Callable[..., tuple[str, dict[str, Any]]]:
    return lambda world, lang, index, rng: (make(world, lang, rng), {})


_MAKERS: dict[str, Callable[..., tuple[str, dict[str, Any]]]] = {
    "encyclopedia": _encyclopedia,
    "news": _plain(prose.news),
    "textbook": _plain(prose.textbook),
    "dialogue": _plain(prose.dialogue),
    "code": lambda world, lang, index, rng: (code_lib.code(lang, rng), {}),
    "parallel": _plain(parallel.parallel),
    "noise": _noise,
    "web": _web,
}
KINDS = tuple(_MAKERS)
# Kinds whose records consist of turns or of several texts; in Korean and English.
_RECORDS = {kind: made.record for made in (conversations, calls, retrieval, faq) for kind in made.KINDS}


def document(world: World, kind: str, lang: str, index: int) -> dict[str, Any]:
    """The `index`-th document of a kind in a language, as a record."""
    rng = stable_random(world.seed, world.size, kind, lang, index)
    found: dict[str, Any]
    if kind in _RECORDS:
        found = _RECORDS[kind](world, kind, lang, index, rng)
    else:
        text, meta = _MAKERS[kind](world, lang, index, rng)
        found = {"text": text, "meta": meta}
    return {
        "id": f"microworld/{world.seed}/{world.size}/{kind}/{lang}/{index}",
        "source": f"microworld-{kind}",
        "lang": lang,
        **found,
        "meta": {"kind": kind, **found["meta"]},
    }


def documents(world: World, kind: str, lang: str, count: int, start: int = 0) -> Iterator[dict[str, Any]]:
    return (document(world, kind, lang, index) for index in range(start, start + count))


def problems(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Programming problems, half of them described in Korean and half in English; see `code.problem`."""
    made = []
    for index in range(count):
        lang = ("ko", "en")[index % 2]
        found = code_lib.problem(lang, stable_random(seed, "problem", index))
        made.append({"id": f"problem/{lang}/{index}", "lang": lang, **found})
    return made


def parse_uri(uri: str) -> Iterator[dict[str, Any]]:
    """Yields the documents of `microworld://kind/lang?seed=0&size=4000&count=1000&start=0`.

    Raises:
      UserError: unknown kind, language or parameter, or a value that is not a whole number.
    """
    parts = urlsplit(uri)
    kind, lang = parts.netloc, languages.tag(parts.path.strip("/"))
    if kind not in (known := (*KINDS, *_RECORDS)):
        raise UserError(f"source '{uri}': no kind '{kind}'; {nearest(kind, known)}")
    if lang not in (spoken := conversations.LANGUAGES if kind in _RECORDS else LANGUAGES):
        raise UserError(f"source '{uri}': no language '{lang}'; {nearest(lang, spoken)}")
    values = {"seed": 0, "size": 4000, "count": 1000, "start": 0}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in values:
            raise UserError(f"source '{uri}': no parameter '{name}'; {nearest(name, list(values))}")
        if not value.isdigit():
            raise UserError(f"source '{uri}': {name} must be a whole number, not '{value}'")
        values[name] = int(value)
    try:
        world = World.create(values["seed"], values["size"])
    except ValueError as error:
        raise UserError(f"source '{uri}': {error}") from error
    return documents(world, kind, lang, values["count"], values["start"])
