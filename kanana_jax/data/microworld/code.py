"""Small Python functions with docstrings in Korean or English; every function is correct and runs."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from kanana_jax.data.microworld.korean import particles


def code(lang: str, rng: random.Random) -> str:
    """One or two functions, each with a correct doctest-style example."""
    return "\n\n\n".join(_function(lang, rng) for _ in range(rng.randint(1, 2)))


def problem(lang: str, rng: random.Random) -> dict[str, str]:
    """A programming problem in HumanEval's form: `prompt`, `solution`, `test`, `entry_point`.

    The test uses arguments that the docstring does not show.
    """
    f = _parts(lang, rng)
    if isinstance(f.argument, str):
        others = ["".join(rng.choice("aeiouxyz") for _ in range(n)) for n in (3, 7, 12)]
    elif isinstance(f.argument, list):
        others = [[rng.randint(1, 120) for _ in range(n)] for n in (1, 4, 9)]
    else:
        others = [rng.randint(41, 400), rng.randint(41, 400), 60060]
    test = [f"    assert candidate({a!r}) == {f.result(a)!r}" for a in others]
    return {
        "prompt": "\n".join(f.head) + "\n",
        "solution": "\n".join("    " + line for line in f.body),
        "test": "\n".join(["def check(candidate):", *test]),
        "entry_point": f.name,
    }


def _function(lang: str, rng: random.Random) -> str:
    f = _parts(lang, rng)
    return "\n".join(f.head + ["    " + line for line in f.body])


class _Parts(NamedTuple):
    """A function: its name, its lines up to the docstring, its body, an argument, and the function itself."""

    name: str
    head: list[str]
    body: list[str]
    argument: Any
    result: Callable[[Any], Any]


def _parts(lang: str, rng: random.Random) -> _Parts:
    ko = lang == "ko"
    n, m = rng.randint(2, 99), rng.randint(2, 20)
    values = [rng.randint(1, 60) for _ in range(rng.randint(3, 6))]
    v = rng.choice(["values", "numbers", "items", "scores", "prices", "ages", "counts"])
    x = rng.choice(["x", "n", "value", "amount", "number"])
    doc = {
        0: (f"{x}에 {n}<을> 더한 값을 돌려준다.", f"Return {x} plus {n}."),
        1: (f"{x}에 {n}<을> 곱한 값을 돌려준다.", f"Return {x} times {n}."),
        2: (f"{v} 가운데 가장 큰 값을 돌려준다.", f"Return the largest of {v}."),
        3: (f"{v}의 합을 돌려준다.", f"Return the sum of {v}."),
        4: (f"{x}<이> {m}의 배수이면 True를 돌려준다.", f"Return True if {x} is a multiple of {m}."),
        5: (f"{v}에서 {n}보다 큰 것의 개수를 센다.", f"Count how many of {v} are greater than {n}."),
        6: (f"{v}<을> 거꾸로 뒤집은 리스트를 돌려준다.", f"Return {v} in reverse order."),
        7: (f"{v}의 평균을 돌려준다.", f"Return the mean of {v}."),
        8: ("문자열 s에서 모음의 개수를 센다.", "Count the vowels in the string s."),
        9: (f"1부터 {x}까지의 합을 돌려준다.", f"Return the sum of the numbers from 1 to {x}."),
    }
    kind = rng.randrange(len(doc))
    word = "".join(rng.choice("abcdefghijklmnoprstuvw") for _ in range(rng.randint(4, 8)))
    argument = {2: values, 3: values, 5: values, 6: values, 7: values, 8: word}.get(kind, rng.randint(1, 40))
    makers: dict[int, tuple[str, list[str], Callable[[Any], Any]]] = {
        0: (f"add_{n}", [f"return {x} + {n}"], lambda a: a + n),
        1: (f"times_{n}", [f"return {x} * {n}"], lambda a: a * n),
        2: (
            f"largest_{v}",
            [f"best = {v}[0]", f"for {x} in {v}:", f"    if {x} > best:", f"        best = {x}", "return best"],
            max,
        ),
        3: (f"sum_{v}", ["total = 0", f"for {x} in {v}:", f"    total += {x}", "return total"], sum),
        4: (f"is_multiple_of_{m}", [f"return {x} % {m} == 0"], lambda a: a % m == 0),
        5: (f"count_above_{n}", [f"return sum(1 for {x} in {v} if {x} > {n})"], lambda a: sum(1 for y in a if y > n)),
        6: (f"reverse_{v}", [f"return {v}[::-1]"], lambda a: a[::-1]),
        7: (f"mean_{v}", [f"return sum({v}) / len({v})"], lambda a: sum(a) / len(a)),
        8: ("count_vowels", ['return sum(1 for c in s if c in "aeiou")'], lambda a: sum(c in "aeiou" for c in a)),
        9: (f"sum_to_{x}", [f"return {x} * ({x} + 1) // 2"], lambda a: a * (a + 1) // 2),
    }
    name, body, result = makers[kind]
    parameter = {2: v, 3: v, 5: v, 6: v, 7: v, 8: "s"}.get(kind, x)
    text = particles(doc[kind][0]) if ko else doc[kind][1]
    head = [
        f"def {name}({parameter}):",
        f'    """{text}',
        "",
        f"    >>> {name}({argument!r})",
        f"    {result(argument)!r}",
        '    """',
    ]
    return _Parts(name, head, body, argument, result)
