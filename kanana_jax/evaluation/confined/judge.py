"""Tests of a program, run in another process than the program.

The tests are the data set's; every name of the program's in them stands for an object on the other side of a pipe.
Arguments go there and results come back as data (`wire.py`), so what a test compares, counts or takes for true is a
value of this process. An object that is no data may be called, walked through and handed back; a test that would
compare it, or ask whether it is true, cannot be judged from here, and that is the end: not passed. Whatever the program
does, it answers calls; the verdict is written by this process alone.
"""

import builtins
import json
import os
import sys
import traceback
from typing import Any, NoReturn

from kanana_jax.evaluation.confined import names, wire

# A program's StopIteration would end a loop of its judge's as if all had been seen.
_ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, (StopIteration, StopAsyncIteration, Warning))
}


class Judge:
    """Asks the program, and writes the verdict once: nothing runs after it, even if a test catches the exception."""

    def __init__(self, reads: int, writes: int, verdict: int) -> None:
        self._reads, self._writes, self._verdict = reads, writes, verdict

    def finish(self, passed: bool, why: str, **more: bool) -> NoReturn:
        """Writes the verdict and ends this process. `gone`: the program ended. `unjudged`: it cannot be judged."""
        why = why.encode(errors="replace").decode()
        os.write(self._verdict, json.dumps({"passed": passed, "why": why[:500], **more}).encode())
        os._exit(0)

    def unjudged(self, what: str) -> NoReturn:
        self.finish(False, f"cannot be judged from outside: {what}", unjudged=True)

    def loaded(self) -> None:
        """Waits for the program to have run."""
        answer = self._receive()
        if type(answer) is not dict or "value" not in answer:
            self._value(answer)

    def named(self, name: str) -> Any:
        """The program's object of that name."""
        return self.ask("name", name=name)

    def ask(self, do: str, target: int | None = None, arguments: tuple = (), words: tuple = (), name: str = "") -> Any:
        """The program's answer. Mutable arguments take their new values from the program.

        Args:
          arguments: the last of them by keyword, if there are `words`.

        Raises:
          Exception: of the kind that the program raised, if it is a built-in one.
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
                self._malformed("other arguments than were sent")
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
        except TypeError:  # of several arguments
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
        self.finish(False, f"the program answered with what is no value: {what}")

    def _refer(self, value: object) -> dict:
        if type(value) is Remote:
            return {"remote": object.__getattribute__(value, "_number")}
        raise wire.NoData(f"a {type(value).__name__} is handed to the program")


class Remote:
    """An object of the program's. It has no value here: what would need one ends the judge."""

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
        return self._judge.unjudged("a test compares an object of the program's that is no data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = _no_value
    __reduce_ex__ = _no_value


def _reflect(mine: Any, theirs: Any) -> None:
    """Makes the judge's argument what the program has made of its copy, container by container."""
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
      request: `tests`, source; `prelude`, source that is run before, in this process; `names` of the program's objects
        in the tests, or None: those that `solution` (source, maybe empty) defines, and those that nothing does.
      channel: descriptors of the program's answers and of the requests to it.
    """
    judge = Judge(*channel, verdict)
    space: dict[str, Any] = {}
    try:
        tests = compile(request["tests"], "<tests>", "exec")
        if "random" in request["tests"]:
            import random

            random.seed(0)  # a verdict is the same each time
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
    """A prompt is Python up to a docstring, or up to where a body has to follow."""
    try:
        return compile(prelude, "<prompt>", "exec")
    except SyntaxError:
        return compile(f"{prelude}\n    pass\n", "<prompt>", "exec")
