"""Panics of Rust libraries (tokenizers, safetensors, tiktoken), raised as errors and not printed.

Such a panic reaches Python as a `BaseException`, which `except Exception` does not see, after its hook has written a
trace to the process's stderr.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Generator

from kanana_jax.errors import UserError

_STDERR = 2
_one_at_a_time = threading.Lock()


def is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


@contextlib.contextmanager
def as_errors(what: str, way_out: str = "fetch it again, or use another") -> Generator[None]:
    """Whatever a library raises inside becomes `UserError`: "WHAT (its first line): WAY_OUT"."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or is_panic(error):
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"{what} ({first}): {way_out}") from error
        raise


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Holds back what the process writes to stderr inside; dropped if a panic comes out, else written afterwards.

    For single calls such as loading a file: other threads' lines come late.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as kept:
        try:
            before = os.dup(_STDERR)
        except OSError:  # a process without stderr
            yield
            return
        os.dup2(kept.fileno(), _STDERR)
        panicked = False
        try:
            yield
        except BaseException as error:
            panicked = any(is_panic(e) for e in (error, error.__cause__) if e is not None)
            raise
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            kept.seek(0)
            if not panicked and (held := kept.read()):
                os.write(_STDERR, held)
