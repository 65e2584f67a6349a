"""The program's process: runs the program, then answers the judge's requests with data.

The program can manipulate everything in this process, so the judge does not trust it: answers are taken as return
values of functions, and only the judge knows what they should be.
"""

import builtins
import contextlib
import operator
import sys
from typing import Any

from kanana_jax.evaluation.confined import wire


def run(source: str, channel: tuple[int, int] | None) -> None:
    """Executes Python source as human-eval does, in empty globals (`__name__` is `builtins`), and serves its judge.

    Args:
      channel: descriptors to read the judge's requests from and to write answers to; None: only run the program.
    """
    if "random" in source:
        _seed()
    space: dict[str, Any] = {}
    if channel is None:
        exec(compile(source, "<program>", "exec"), space)
        return
    objects: list[Any] = []

    def refer(value: object) -> Any:
        plain = wire.base(value)
        if plain is not value:
            return wire.encode(plain, refer)
        objects.append(value)
        return {"remote": len(objects) - 1}

    reads, writes = channel
    try:
        exec(compile(source, "<program>", "exec"), space)
        wire.send(writes, {"value": None})
    except BaseException as error:
        wire.send(writes, _raised(error))
        raise
    while True:
        try:
            request = wire.receive(reads)
        except EOFError:
            return
        _send(writes, _answer(request, space, objects, refer))


def _seed() -> None:
    import random

    random.seed(0)  # makes verdicts reproducible


def _send(writes: int, answer: dict) -> None:
    try:
        wire.send(writes, answer)
    except wire.NoData as error:
        wire.send(writes, {"raised": ["ValueError", str(error)]})


def _answer(request: dict, space: dict, objects: list, refer: Any) -> dict:
    arguments: list[Any] = []
    given = request.get("arguments", [])
    try:
        arguments = [wire.decode(a, objects.__getitem__) for a in given]
        answer = {"value": wire.encode(_do(request, space, objects, arguments), refer)}
    except BaseException as error:
        if request["do"] == "next" and isinstance(error, StopIteration):
            return {"end": True}
        answer = _raised(error)
    with contextlib.suppress(Exception):  # if the arguments are no longer data, the judge keeps its own
        changed = [wire.encode(a, refer) for a in arguments]
        if changed != given:
            answer["arguments"] = changed
    return answer


def _do(request: dict, space: dict, objects: list, arguments: list) -> Any:
    do = request["do"]
    if do == "name":
        if request["name"] not in space:
            raise NameError(f"name {request['name']!r} is not defined")
        return space[request["name"]]
    target = objects[request["target"]]
    if do == "call":
        words = request["keywords"]
        positional = arguments[: len(arguments) - len(words)]
        return target(*positional, **dict(zip(words, arguments[len(positional) :], strict=True)))
    if do == "get":
        return getattr(target, request["name"])
    if do == "set":
        return setattr(target, request["name"], *arguments)
    acts = {"item": operator.getitem, "length": len, "text": str, "iterate": iter, "next": next}
    return acts[do](target, *arguments)


def _raised(error: BaseException) -> dict:
    """An exception as its nearest built-in class and text; `ended` for those that end a program (`SystemExit`)."""
    name = next(c.__name__ for c in type(error).__mro__ if vars(builtins).get(c.__name__) is c)
    try:
        text = str(error)[:1000]
    except Exception:
        text = ""
    if not isinstance(error, Exception):
        print(f"{name}: {text}", file=sys.stderr)
        return {"ended": name}
    return {"raised": [name, text]}
