"""User-facing errors: one sentence each, with the process exit code."""

import difflib
import signal
from collections.abc import Sequence

from kanana_jax import REPOSITORY


class UserError(Exception):
    """An error that the user can fix: one sentence with the cause, the place and the remedy."""

    exit_code = 1


class ConfigError(UserError):
    """Bad usage or a bad config value."""

    exit_code = 2


class Stopped(BaseException):
    """A signal asked the process to stop; `except Exception` does not catch it."""

    exit_code = 75  # EX_TEMPFAIL: run the same command again

    def __init__(self, signum: int, sentence: str):
        super().__init__(sentence)
        self.exit_code = 130 if signum == signal.SIGINT else Stopped.exit_code


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the name that `word` was meant to be, for the end of an error message."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(known)) or 'none'}"


def install(extra: str) -> str:
    """The command that installs one of the package's extras, for error messages."""
    return f'pip install "kanana-jax[{extra}] @ git+{REPOSITORY}"'
