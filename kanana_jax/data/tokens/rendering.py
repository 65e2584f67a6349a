"""Chat templates rendered within bounds of time, memory and output.

A child process renders (`template_process.py`), and the kernel ends it at its limits: neither a loop in a template nor
one power of two large numbers can be stopped from inside of Python. It lives as long as the renderer, so that a
stage that renders a conversation per record pays for one start.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.data.tokens import template_process
from kanana_jax.errors import UserError


class ChatRefused(UserError):
    """A template has refused the messages: roles in an order that it has none for, a system message …"""


# All that a child sees of the environment: templates ask for the time of day, and Python for its libraries.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of one rendering: CPU seconds, bytes of the process, characters written."""

    seconds: float = 5.0
    memory_bytes: int = 1 << 30
    characters: int = 8_000_000


class Renderer:
    """Renders one folder's templates.

    Args:
      where: the folder, for errors.
      trusted: templates of our own, which are rendered in this process.
    """

    def __init__(self, where: str, trusted: Sequence[str] = (), limits: Limits = Limits()):
        self._where, self._limits = where, limits
        self._environment = template_process.environment()
        self._own = {template: self._environment.from_string(template) for template in trusted}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def render(self, template: str, asked: Sequence[Mapping[str, Any]]) -> list[str]:
        """The text of each set of variables (JSON values).

        Raises:
          ChatRefused: the template refuses them.
          UserError: it fails, or exceeds a limit.
        """
        request = {"template": template, "asked": asked, "characters": self._limits.characters}
        if template in self._own:
            answer = template_process.answer(self._environment, request, self._own)
        else:
            answer = self._ask(json.dumps(request))
        if "refused" in answer:
            raise ChatRefused(f"{self._where}: the chat template refuses these messages: {answer['refused']}")
        if "error" in answer:
            raise UserError(f"{self._where}: the chat template {answer['error']}: correct its file")
        return answer["texts"]

    def _ask(self, request: str) -> dict[str, Any]:
        with self._lock:
            if self._process is None or self._owner != os.getpid():  # a fork must not share its parent's pipes
                self._process, self._owner = self._start(), os.getpid()
            process = self._process
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(request + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            if line:
                return json.loads(line)
            self._process = None
            _stop(process)
            if process.returncode in (-signal.SIGPROF, -signal.SIGALRM):
                return {"error": f"does not end within {self._limits.seconds:g} seconds"}
            return {"error": f"ends its process (code {process.returncode})"}

    def _start(self) -> subprocess.Popen[str]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-P", str(pathlib.Path(template_process.__file__))]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            encoding="utf-8",
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(dataclasses.asdict(self._limits)) + "\n")
        weakref.finalize(self, _stop, process)
        return process


def _stop(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
