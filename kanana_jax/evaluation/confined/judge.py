"""The judge, which runs a program's tests in a process separate from the program.

The tests come from the data set; in them, every name of the program stands for an object at the other end of a pipe.
Arguments are sent and results come back as data (`wire.py`), so whatever a test compares, counts or evaluates as true
is a value of this process. An object that is not data can be called, iterated over and passed back. A test that would
compare it or take its truth value cannot be judged from here and counts as not passed. The program can only answer
calls; this process alone writes the verdict.
"""

import builtins
import json
import os
import sys
import traceback
from typing import Any, NoReturn

from kanana_jax.evaluation.confined import names, wire

# StopIteration is excluded: raised by a program, it would silently end a loop of the tests.
_ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, (StopIteration, StopAsyncIteration, Warning))
}


class Judge:
    """The connection to the program. Writing the verdict ends this process, so a test cannot catch or undo it."""

    def __init__(self, reads: int, writes: int, verdict: int) -> None:
        self._reads, self._writes, self._verdict = reads, writes, verdict

    def finish(self, passed: bool, why: str, **more: bool) -> NoReturn:
        """Writes the verdict and ends this process.

        Args:
          more: `gone`: the program has ended; `unjudged`: it cannot be judged.
        """
        why = why.encode(errors="replace").decode()
        os.write(self._verdict, json.dumps({"passed": passed, "why": why[:500], **more}).encode())
        os._exit(0)

    def unjudged(self, what: str) -> NoReturn:
        self.finish(False, f"cannot be judged from outside: {what}", unjudged=True)

    def loaded(self) -> None:
        """Waits until the program's module-level code has run."""
        answer = self._receive()
        if type(answer) is not dict or "value" not in answer:
            self._value(answer)

    def named(self, name: str) -> Any:
        """The program's object with this name."""
        return self.ask("name", name=name)

    def ask(self, do: str, target: int | None = None, arguments: tuple = (), words: tuple = (), name: str = "") -> Any:
        """Sends a request and returns the program's answer; mutable arguments are updated as the program changed them.

        Args:
          do: kind of request.
          target: number of the program's object.
          arguments: positional arguments, then the values of keyword arguments.
          words: names of the keyword arguments.
          name: name of an object or attribute.

        Raises:
          Exception: the program raised an exception; it has the same type if that is built-in.
        """
        request = {"do": do, "target": target, "keywords": words, "name": name}
        try:
            wire.send(self._writes, request | {"arguments": [wire.encode(a, self._refer) for a in arguments]})
        except wire.NoData as error:
            self.unjudged(str(error))
        except OSError:
            self._gone()
        answer = self._receive()
        if type(answer) is not dict:
            self._malformed("no answer")
        if answer.get("arguments") is not None:
            changed = self._decode(answer["arguments"])
            if type(changed) is not list or len(changed) != len(arguments):
                self._malformed("other arguments than those sent")
            for mine, theirs in zip(arguments, changed):
                _reflect(mine, theirs)
        if do == "next" and answer.get("end") is True:
            raise StopIteration
        return self._value(answer)

    def _value(self, answer: Any) -> Any:
        if type(answer) is dict and "value" in answer:
            return self._decode(answer["value"])
        if type(answer) is dict and "ended" in answer:
            self.finish(False, f"the program ended itself: {str(answer['ended'])[:80]}")
        try:
            name, text = answer["raised"]
            error = _ERRORS.get(name, Exception)
        except (TypeError, ValueError, KeyError):
            self._malformed("neither a value nor an error")
        text = text if type(text) is str else ""
        try:
            made = error(text)
        except TypeError:  # the type needs several arguments
            made = ValueError(text)
        raise made

    def _receive(self) -> Any:
        try:
            return wire.receive(self._reads)
        except (EOFError, OSError):
            self._gone()
        except wire.Malformed as error:
            self._malformed(str(error))
        except MemoryError:
            self._malformed("more than fits into memory")

    def _decode(self, message: Any) -> Any:
        try:
            return wire.decode(message, lambda number: Remote(self, number))
        except wire.Malformed as error:
            self._malformed(str(error))
        except MemoryError:
            self._malformed("more than fits into memory")

    def _gone(self) -> NoReturn:
        self.finish(False, "the program ended before its tests", gone=True)

    def _malformed(self, what: str) -> NoReturn:
        self.finish(False, f"the program answered with something that is not a value: {what}")

    def _refer(self, value: object) -> dict:
        if type(value) is Remote:
            return {"remote": object.__getattribute__(value, "_number")}
        raise wire.NoData(f"a {type(value).__name__} is handed to the program")


class Remote:
    """A proxy for an object of the program. It has no value here; operations that need one end the judge."""

    __slots__ = ("_judge", "_number")

    def __init__(self, judge: Judge, number: int) -> None:
        object.__setattr__(self, "_judge", judge)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **words: Any) -> Any:
        return self._judge.ask("call", self._number, (*arguments, *words.values()), tuple(words))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._judge.ask("get", self._number, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._judge.ask("set", self._number, (value,), name=name)

    def __getitem__(self, key: Any) -> Any:
        return self._judge.ask("item", self._number, (key,))

    def __len__(self) -> int:
        return self._judge.ask("length", self._number)

    def __str__(self) -> str:
        return self._judge.ask("text", self._number)

    def __iter__(self) -> Any:
        return self._judge.ask("iterate", self._number)

    def __next__(self) -> Any:
        return self._judge.ask("next", self._number)

    def _no_value(self, *_: Any) -> Any:
        return self._judge.unjudged("a test compares an object of the program that is not data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = _no_value
    __reduce_ex__ = _no_value


def _reflect(mine: Any, theirs: Any) -> None:
    """Updates an argument in place, container by container, to the value that the program has given its copy."""
    kind = type(mine)
    if kind is not type(theirs):
        return
    if kind in (list, tuple):
        same = len(mine) == len(theirs)
        kept = [_kept(a, b) for a, b in zip(mine, theirs)] if same else theirs
        if kind is list:
            mine[:] = kept
    elif kind is dict:
        kept = {k: _kept(mine[k], v) if k in mine else v for k, v in theirs.items()}
        mine.clear()
        mine.update(kept)
    elif kind is set:
        mine.clear()
        mine.update(theirs)
    elif kind is bytearray:
        mine[:] = theirs


def _kept(mine: Any, theirs: Any) -> Any:
    if type(mine) is Remote:
        return mine
    if type(mine) in (list, tuple, dict, set, bytearray) and type(theirs) is type(mine):
        _reflect(mine, theirs)
        return theirs if type(mine) is tuple else mine
    return theirs


def run(request: dict, channel: tuple[int, int], verdict: int) -> NoReturn:
    """Judges one program.

    Args:
      request: `tests`: source of the tests; `prelude`: source to run before them in this process; `names`: names of the
        program's objects in the tests, or None for those that `solution` (source, may be empty) or nothing defines.
      channel: descriptors to read the program's answers from and to write requests to.
      verdict: descriptor to write the verdict to.
    """
    judge = Judge(*channel, verdict)
    space: dict[str, Any] = {}
    try:
        tests = compile(request["tests"], "<tests>", "exec")
        if "random" in request["tests"]:
            import random

            random.seed(0)  # makes verdicts reproducible
        if request["prelude"]:
            exec(_compiled(request["prelude"]), space)
        theirs, imports = request["names"], ""
        if names.run_text(request["tests"]):
            judge.unjudged("a test runs a text as code")
        if theirs is None:
            theirs, imports = names.of_program(request["tests"], request["solution"])
        exec(imports, space)
    except Exception as error:
        traceback.print_exc()
        judge.unjudged(f"the tests do not run: {type(error).__name__}: {error}")
    try:
        judge.loaded()
        space |= {name: judge.named(name) for name in theirs}
        exec(tests, space)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        judge.finish(False, f"{type(error).__name__}: {error}".rstrip(": "))
    judge.finish(True, "passed")


def _compiled(prelude: str) -> Any:
    """Compiles a prompt, which ends with a docstring or where the body of a function would follow."""
    try:
        return compile(prelude, "<prompt>", "exec")
    except SyntaxError:
        return compile(f"{prelude}\n    pass\n", "<prompt>", "exec")
