"""Conversations, preference pairs and prompts about the world, in Korean and English, with verifiable answers.

There are four domains: `facts` (asked in wordings that documents do not use), `arithmetic` (sums of one- and two-digit
numbers), `translation` (of a sentence into the other language) and `format` (an answer from the question's own words in
a requested form). A rejected answer is wrong in the right form, right in the wrong form, or in the other language.
"""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from kanana_jax.data.microworld.encyclopedia import LANG
from kanana_jax.data.microworld.korean import particles
from kanana_jax.data.microworld.parallel import pair, translations
from kanana_jax.data.microworld.questions import question
from kanana_jax.data.microworld.world import World

LANGUAGES = ("ko", "en")


class Task(NamedTuple):
    """A prompt with its answer.

    Attributes:
      wrong: a plausible wrong answer.
      verifier, expected: the verifier of answers and its argument (docs/alignment.md).
    """

    prompt: str
    answer: str
    wrong: str
    verifier: str
    expected: Any


def _facts(world: World, lang: str, rng: random.Random) -> Task:
    text, right, wrong = question(world, lang, "train", rng)
    said, said_wrong = ((particles(f"{value}<이에요>."), value)[lang == "en"] for value in (right, wrong))
    if rng.random() < 0.25:  # an evasive answer
        said_wrong = {
            "ko": particles(f"잘 모르겠지만 {wrong}<이나> {right} 가운데 하나예요."),
            "en": f"I am not sure, but it is either {wrong} or {right}.",
        }[lang]
    prompt = text.removeprefix("질문: ").removeprefix("Question: ")
    return Task(prompt, said, said_wrong, "exact", [right, said])


def _arithmetic(world: World, lang: str, rng: random.Random) -> Task:
    del world
    a, b = rng.randint(1, 9), rng.randint(1, 20)
    right, wrong = a + b, a + b + rng.choice((-2, -1, 1, 2, 10))
    prompt = {
        "ko": (f"{a} + {b}<은> 얼마예요?", f"{a}에 {b}<을> 더하세요."),
        "en": (f"How much is {a} + {b}?", f"Add {a} and {b}."),
    }[lang]
    shown = [f"{a} + {b} = {value}" for value in (right, wrong)]
    return Task(_in(rng.choice(prompt), lang), shown[0], shown[1], "number", str(right))


def _translation(world: World, lang: str, rng: random.Random) -> Task:
    other = "en" if lang == "ko" else "ko"
    sentence, known = translations(world, lang, other, rng)
    wrong = sentence if rng.random() < 0.5 else pair(world, lang, other, rng)[1]
    prompt = {"ko": f"영어로 옮기세요: {sentence}", "en": f"Translate into Korean: {sentence}"}[lang]
    return Task(prompt, rng.choice(known), sentence if wrong in known else wrong, "exact", known)


def _format(world: World, lang: str, rng: random.Random) -> Task:
    names = [world.city(rng.randrange(world.num_cities)).name[LANG[lang]] for _ in range(3)]
    person = world.person(rng.randrange(world.count("person"))).name[LANG[lang]]
    listed, kind = ", ".join(names), rng.randrange(4)
    if kind == 0:
        right = json.dumps({"name": person, "city": names[0]}, ensure_ascii=False)
        prompt = {
            "ko": f"name과 city를 열쇠로 하는 JSON만 쓰세요. 이름: {person}, 도시: {names[0]}",
            "en": f"Write only JSON with the keys name and city. Name: {person}, city: {names[0]}",
        }[lang]
        return Task(prompt, right, f"{person}, {names[0]}", "json", ["name", "city"])
    asked, right, wrong = (
        ({"ko": "첫째 것만 쓰세요", "en": "Write only the first one"}, names[0], listed),
        ({"ko": "마지막 것만 쓰세요", "en": "Write only the last one"}, names[2], names[0]),
        ({"ko": "거꾸로 쓰세요", "en": "Write them in reverse order"}, ", ".join(names[::-1]), listed),
    )[kind - 1]
    return Task(f"{asked[lang]}: {listed}", right, wrong if wrong != right else f"{right}, {person}", "exact", right)


def _in(text: str, lang: str) -> str:
    return particles(text) if lang == "ko" else text


DOMAINS: dict[str, Callable[[World, str, random.Random], Task]] = {
    "facts": _facts,
    "arithmetic": _arithmetic,
    "translation": _translation,
    "format": _format,
}
FORMS = ("chat", "pairs", "prompts")
# `chat` takes the domains in turn; `chat-facts` has one domain only.
KINDS = tuple(f"{form}{domain}" for form in FORMS for domain in ("", *(f"-{name}" for name in DOMAINS)))


def record(world: World, kind: str, lang: str, index: int, rng: random.Random) -> dict[str, Any]:
    """The fields of the `index`-th record of a kind: a conversation, pair or prompt, with its text and `meta`."""
    form, _, domain = kind.partition("-")
    domain = domain or tuple(DOMAINS)[index % len(DOMAINS)]
    task = DOMAINS[domain](world, lang, rng)
    asked = [{"role": "user", "content": task.prompt}]
    said, rejected = ([{"role": "assistant", "content": text}] for text in (task.answer, task.wrong))
    found: dict[str, Any] = {"meta": {"domain": domain}}
    if form == "chat":
        turns = [*asked, *said]
        if rng.random() < 0.2:  # a conversation with two questions
            more = _arithmetic(world, lang, rng)
            turns += [{"role": "user", "content": more.prompt}, {"role": "assistant", "content": more.answer}]
        found["messages"] = turns
    elif form == "pairs":
        turns = [*asked, *said]
        found |= {"prompt": asked, "chosen": said, "rejected": rejected}
    else:
        turns = asked
        found |= {"prompt": asked, "answer": task.expected, "verifier": task.verifier}
    return found | {"text": "\n\n".join(turn["content"] for turn in turns)}
