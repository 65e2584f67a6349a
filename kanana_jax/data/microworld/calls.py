"""Conversations with function calls about the world, in Korean and English: `messages` and OpenAI's `tools`.

There are five domains: `single` (one call), `parallel` (a question about two things: two calls at once), `slot` (a
required argument is missing: the assistant asks for it, then calls), `none` (no function fits, and the assistant says
so) and `result` (the assistant answers from a function's result). Each prompt offers two to four functions in random
order.
"""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from kanana_jax.data.microworld.encyclopedia import LANG
from kanana_jax.data.microworld.korean import particles
from kanana_jax.data.microworld.world import World

LANGUAGES = ("ko", "en")
Json = dict[str, Any]


class Parameter(NamedTuple):
    """A parameter of a function.

    Attributes:
      schema: its JSON schema.
      said: language → its name in the assistant's question for it.
    """

    name: str
    schema: Json
    said: dict[str, str]


class Function(NamedTuple):
    """A function that can be offered to the model.

    Attributes:
      described: language → description.
      parameters: in the domain `slot`, the first one is missing from the user's question.
      asked: language → questions, with `{parameter}` for each value.
      without: language → questions that leave out the first parameter.
      answers: language → the answer from a result, with `{result}`.
      values: samples arguments.
      result: samples a result.
    """

    name: str
    described: dict[str, str]
    parameters: tuple[Parameter, ...]
    asked: dict[str, tuple[str, ...]]
    without: dict[str, tuple[str, ...]]
    answers: dict[str, str]
    values: Callable[[World, str, random.Random], Json]
    result: Callable[[World, str, random.Random], Any]


def _text(name: str, ko: str, en: str) -> Parameter:
    return Parameter(name, {"type": "string"}, {"ko": ko, "en": en})


def _city(world: World, lang: str, rng: random.Random) -> str:
    return world.city(rng.randrange(world.num_cities)).name[LANG[lang]]


def _person(world: World, lang: str, rng: random.Random) -> str:
    return world.person(rng.randrange(world.count("person"))).name[LANG[lang]]


def _firm(world: World, lang: str, rng: random.Random) -> str:
    return world.firm(rng.randrange(world.num_firms)).name[LANG[lang]]


_WORDS = {
    "ko": ("내일 만나요", "회의가 끝났어요", "늦을 것 같아요"),
    "en": ("see you tomorrow", "the meeting is over", "I am late"),
}
_UNITS = ("celsius", "fahrenheit")

FUNCTIONS = (
    Function(
        "get_population",
        {"ko": "도시의 인구를 알려줍니다.", "en": "Returns the population of a city."},
        (_text("city", "도시", "the city"),),
        {
            "ko": ("{city}의 인구가 얼마예요?", "{city}에는 몇 명이 살아요?", "{city} 인구를 알려주세요."),
            "en": ("How many people live in {city}?", "What is the population of {city}?"),
        },
        {
            "ko": ("인구가 궁금해요.", "그 도시에 몇 명이 살아요?"),
            "en": ("How many people live there?", "I need a population."),
        },
        {"ko": "인구는 {result}명이에요.", "en": "The population is {result}."},
        lambda world, lang, rng: {"city": _city(world, lang, rng)},
        lambda world, lang, rng: rng.randint(8, 900) * 1000,
    ),
    Function(
        "get_weather",
        {"ko": "도시의 현재 기온을 알려줍니다.", "en": "Returns the temperature in a city."},
        (
            _text("city", "도시", "the city"),
            Parameter("unit", {"type": "string", "enum": list(_UNITS)}, {"ko": "단위", "en": "the unit"}),
        ),
        {
            "ko": ("{city} 기온을 {unit} 단위로 알려주세요.", "{city}<은> 지금 몇 도예요? {unit}로 부탁해요."),
            "en": ("How warm is it in {city}, in {unit}?", "Tell me the temperature of {city} in {unit}."),
        },
        {"ko": ("지금 몇 도예요? {unit}로 알려주세요.",), "en": ("How warm is it now, in {unit}?",)},
        {"ko": "지금 {result}도예요.", "en": "It is {result} degrees."},
        lambda world, lang, rng: {"city": _city(world, lang, rng), "unit": rng.choice(_UNITS)},
        lambda world, lang, rng: rng.randint(-10, 35),
    ),
    Function(
        "get_job",
        {"ko": "사람의 직업을 찾습니다.", "en": "Looks up a person's job."},
        (_text("name", "이름", "the name"),),
        {
            "ko": ("{name}<은> 무슨 일을 해요?", "{name}의 직업을 찾아주세요."),
            "en": ("What does {name} do?", "Look up the job of {name}."),
        },
        {
            "ko": ("그 사람은 무슨 일을 해요?", "직업을 찾아주세요."),
            "en": ("What does that person do?", "Look up a job."),
        },
        {"ko": "직업은 {result}<이에요>.", "en": "The job is {result}."},
        lambda world, lang, rng: {"name": _person(world, lang, rng)},
        lambda world, lang, rng: world.person(rng.randrange(world.count("person"))).job[LANG[lang]],
    ),
    Function(
        "send_message",
        {"ko": "사람에게 메시지를 보냅니다.", "en": "Sends a message to a person."},
        (_text("to", "받는 사람", "the receiver"), _text("text", "내용", "the text")),
        {
            "ko": ("{to}에게 '{text}'<이라고> 보내주세요.", "메시지 보내줘. 받는 사람: {to}, 내용: {text}"),
            "en": ("Send '{text}' to {to}.", "Write {to} a message: {text}"),
        },
        {"ko": ("'{text}'<이라고> 메시지를 보내주세요.",), "en": ("Send a message: '{text}'.",)},
        {"ko": "메시지를 보냈어요.", "en": "The message is sent."},
        lambda world, lang, rng: {"to": _person(world, lang, rng), "text": rng.choice(_WORDS[lang])},
        lambda world, lang, rng: "ok",
    ),
    Function(
        "set_alarm",
        {"ko": "알람을 맞춥니다.", "en": "Sets an alarm."},
        (
            Parameter("hour", {"type": "integer", "minimum": 0, "maximum": 23}, {"ko": "시각", "en": "the hour"}),
            Parameter("minute", {"type": "integer", "minimum": 0, "maximum": 59}, {"ko": "분", "en": "the minute"}),
        ),
        {
            "ko": ("{hour}시 {minute}분에 깨워주세요.", "알람을 {hour}시 {minute}분으로 맞춰줘."),
            "en": ("Wake me at {hour} hours {minute} minutes.", "Set an alarm for hour {hour}, minute {minute}."),
        },
        {"ko": ("정시에서 {minute}분 뒤에 깨워주세요.",), "en": ("Wake me {minute} minutes past the hour.",)},
        {"ko": "알람을 맞췄어요.", "en": "The alarm is set."},
        lambda world, lang, rng: {"hour": rng.randrange(24), "minute": rng.randrange(0, 60, 5)},
        lambda world, lang, rng: "ok",
    ),
    Function(
        "get_price",
        {"ko": "회사 제품의 값을 원으로 알려줍니다.", "en": "Returns the price of a firm's product in won."},
        (
            _text("firm", "회사", "the firm"),
            Parameter("count", {"type": "integer", "minimum": 1}, {"ko": "개수", "en": "the number"}),
        ),
        {
            "ko": ("{firm} 제품 {count}개는 얼마예요?", "{firm}에서 {count}개를 사면 얼마인가요?"),
            "en": ("How much are {count} products of {firm}?", "What do {count} of {firm}'s products cost?"),
        },
        {"ko": ("{count}개에 얼마예요?",), "en": ("How much are {count}?",)},
        {"ko": "{result}원이에요.", "en": "They cost {result} won."},
        lambda world, lang, rng: {"firm": _firm(world, lang, rng), "count": rng.randint(1, 20)},
        lambda world, lang, rng: rng.randint(5, 400) * 1000,
    ),
)
_NEVER = {
    "ko": (
        "오늘 기분이 어때요?",
        "시를 한 편 써주세요.",
        "{city}까지 가는 기차를 예매해주세요.",
        "이 사진을 흑백으로 바꿔주세요.",
    ),
    "en": (
        "How do you feel today?",
        "Write a poem.",
        "Book me a train to {city}.",
        "Make this picture black and white.",
    ),
}
_CANNOT = {"ko": "그것은 제가 가진 기능으로 할 수 없어요.", "en": "None of my functions can do that."}
_ASK = {"ko": "{said}<을> 알려주세요.", "en": "Please tell me {said}."}
DOMAINS = ("single", "parallel", "slot", "none", "result")
KINDS = ("calls", *(f"calls-{domain}" for domain in DOMAINS))


def record(world: World, kind: str, lang: str, index: int, rng: random.Random) -> dict[str, Any]:
    """The fields of the `index`-th record of a kind: `messages`, `tools`, `text` and `meta`."""
    domain = kind.partition("-")[2] or DOMAINS[index % len(DOMAINS)]
    function = FUNCTIONS[rng.randrange(len(FUNCTIONS))]
    others = [each for each in FUNCTIONS if each is not function]
    offered = [function, *rng.sample(others, rng.randint(1, 3))]
    rng.shuffle(offered)
    turns = _TURNS[domain](function, world, lang, rng)
    said = "\n\n".join(turn.get("content") or turn["tool_calls"][0]["function"]["arguments"] for turn in turns)
    return {
        "messages": turns,
        "tools": [_tool(each, lang) for each in offered],
        "text": said,
        "meta": {"domain": domain},
    }


def _tool(function: Function, lang: str) -> Json:
    parameters = {
        "type": "object",
        "properties": {each.name: each.schema for each in function.parameters},
        "required": [each.name for each in function.parameters],
    }
    described = {"name": function.name, "description": function.described[lang], "parameters": parameters}
    return {"type": "function", "function": described}


def _said(template: str, lang: str, **values: Any) -> str:
    text = template.format(**values)
    return particles(text) if lang == "ko" else text


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _calling(function: Function, *values: Json) -> Json:
    calls = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": function.name, "arguments": json.dumps(each, ensure_ascii=False)},
        }
        for i, each in enumerate(values)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _single(function: Function, world: World, lang: str, rng: random.Random) -> list[Json]:
    values = function.values(world, lang, rng)
    return [_user(_said(rng.choice(function.asked[lang]), lang, **values)), _calling(function, values)]


def _parallel(function: Function, world: World, lang: str, rng: random.Random) -> list[Json]:
    values = [function.values(world, lang, rng) for _ in range(2)]
    asked = [_said(rng.choice(function.asked[lang]), lang, **each) for each in values]
    return [_user(" ".join(asked)), _calling(function, *values)]


def _slot(function: Function, world: World, lang: str, rng: random.Random) -> list[Json]:
    values, missing = function.values(world, lang, rng), function.parameters[0]
    known = {key: value for key, value in values.items() if key != missing.name}
    return [
        _user(_said(rng.choice(function.without[lang]), lang, **known)),
        _assistant(_said(_ASK[lang], lang, said=missing.said[lang])),
        _user(str(values[missing.name])),
        _calling(function, values),
    ]


def _none(function: Function, world: World, lang: str, rng: random.Random) -> list[Json]:
    return [_user(_said(rng.choice(_NEVER[lang]), lang, city=_city(world, lang, rng))), _assistant(_CANNOT[lang])]


def _result(function: Function, world: World, lang: str, rng: random.Random) -> list[Json]:
    result = function.result(world, lang, rng)
    told = {"role": "tool", "tool_call_id": "call_0", "content": json.dumps({"result": result}, ensure_ascii=False)}
    answer = _said(function.answers[lang], lang, result=result)
    return [*_single(function, world, lang, rng), told, _assistant(answer)]


_TURNS = {"single": _single, "parallel": _parallel, "slot": _slot, "none": _none, "result": _result}
