"""The shape of a verb: its action, and the function that adds its parser."""

import argparse
from collections.abc import Callable
from typing import Protocol

# The options, the overrides of the config (`a.b=v`) and the whole command → the exit code; None is 0.
Action = Callable[[argparse.Namespace, list[str], list[str]], int | None]


class AddVerb(Protocol):
    """Adds a verb and returns its parser.

    Args of the call:
      summary: one line, in the list of verbs and in the verb's help.
      example: printed below the options.
      passes_on: the verb takes no options of its own; its action gets all arguments as they are, in place of
        overrides, `--help` included.
    """

    def __call__(
        self, name: str, action: Action, summary: str, example: str, *, passes_on: bool = False
    ) -> argparse.ArgumentParser: ...
