"""What a verb's process is to its shell: text streams, whatever the locale says."""

import io
import os
import sys


def set_up_streams() -> None:
    """Pipes and files carry UTF-8; a terminal keeps its encoding. What it cannot show is escaped, never an error."""
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            keeps = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=stream.encoding if keeps else "utf-8", errors=errors)
