"""Notebooks run in a kernel, and their outputs compared with those that are committed.

`python tests/notebook_outputs.py [NAME.ipynb …]` (`make notebooks`) runs notebooks again and keeps what they show.
"""

import json
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))
KERNEL = "kanana"
# What differs from run to run: places, everything that a clock has a part in, and a warning of Colab's own requests.
_VARIES = {
    r".*RequestsDependencyWarning.*\n\s*warnings\.warn\(\n": "",
    r"/\S*/tmp\w{6,}": "FOLDER",
    r"[\d,.]+ tok/s|MFU [\d.]+%|wait [\d.]+%|ETA [\d:]+|[\d.]+ ?(?:s|ms|min|MB/s)\b": "TIME",
}
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def execute(file: pathlib.Path, python: str, folder: pathlib.Path, environment: Mapping[str, str] | None = None):
    """The notebook with the outputs of a kernel of `python` that works in the empty folder `folder`.

    The kernel has loaded NumPy before the first cell runs, and pandas where there is one, as in Colab.
    """
    with tempfile.TemporaryDirectory() as own:
        spec = pathlib.Path(own) / "kernels" / KERNEL / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}), encoding="utf-8")
        start = pathlib.Path(own) / "ipython/profile_default/startup/begin.py"
        start.parent.mkdir(parents=True)
        loads = "import contextlib\nimport numpy\nwith contextlib.suppress(ImportError):\n    import pandas\n"
        start.write_text(loads, encoding="utf-8")
        notebook = nbformat.read(file, as_version=4)
        before = {"JUPYTER_PATH": os.environ.get("JUPYTER_PATH")}
        os.environ["JUPYTER_PATH"] = own
        try:
            client = NotebookClient(
                notebook,
                timeout=900,
                kernel_name=KERNEL,
                record_timing=False,
                coalesce_streams=True,
                resources={"metadata": {"path": str(folder)}},
            )
            env = {**os.environ, "IPYTHONDIR": str(start.parents[2]), "JAX_PLATFORMS": "cpu", **(environment or {})}
            client.execute(env=env)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    return notebook


def outputs(cell: NotebookNode) -> list[tuple[str, str]]:
    """What a code cell shows: (kind, text) in order, with streams joined; a figure's text is its SVG or HTML."""
    shown: list[tuple[str, str]] = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            if shown and shown[-1][0] == output.name:
                shown[-1] = (output.name, shown[-1][1] + output.text)
            else:
                shown.append((output.name, output.text))
        else:
            data = output.data
            kind = next(k for k in ("image/svg+xml", "image/png", "text/html", "text/plain") if k in data)
            shown.append((kind, data[kind]))
    return shown


def differences(committed: NotebookNode, now: NotebookNode, tolerance: float) -> Iterator[str]:
    """Sentences about cells that show something else.

    Numbers may differ by the share `tolerance` or by one in the last place of a fraction, figures in their size by a tenth. Of cells that are tagged `generated`
    (texts drawn from a model, which one other bit of one probability can change) the number of texts is compared.
    """
    for a, b in zip(committed.cells, now.cells, strict=True):
        if a.cell_type != "code" or "%pip" in a.source:
            continue
        old, new = outputs(a), outputs(b)
        if [kind for kind, _ in old] != [kind for kind, _ in new]:
            yield f"{a.id} shows {[k for k, _ in new]}, was {[k for k, _ in old]}"
            continue
        for (kind, was), (_, now_is) in zip(old, new):
            if kind == "image/svg+xml":
                if abs(len(was) - len(now_is)) > 0.1 * len(was):
                    yield f"{a.id}: a figure of {len(now_is)} characters, was {len(was)}"
            elif "generated" in a.metadata.get("tags", ()):
                if was.count("\n\n") != now_is.count("\n\n"):
                    yield f"{a.id}: {now_is.count(chr(10) * 2)} texts"
            else:
                yield from (f"{a.id}: {line}" for line in _lines(was, now_is, tolerance))


def _lines(was: str, now: str, tolerance: float) -> Iterator[str]:
    for pattern, word in _VARIES.items():
        was, now = re.sub(pattern, word, was), re.sub(pattern, word, now)
    old, new = was.splitlines(), now.splitlines()
    if len(old) != len(new):
        yield f"{len(new)} lines, was {len(old)}"
        return
    for a, b in zip(old, new):
        if _NUMBER.sub("N", a) != _NUMBER.sub("N", b):
            yield f"{b!r}, was {a!r}"
            continue
        for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b)):
            one, other = (float(v.replace(",", "")) for v in (x, y))
            last = 1.5 * 10.0 ** -len(x.partition(".")[2]) if "." in x and "e" not in x else 0.0
            if abs(one - other) > max(tolerance * max(abs(one), abs(other)), last):
                yield f"{y} in {b!r}, was {x}"


def renew() -> None:
    """Runs notebooks here and writes what they show into them."""
    for file in [f for f in NOTEBOOKS if not sys.argv[1:] or f.name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(file, sys.executable, pathlib.Path(folder))
        nbformat.write(notebook, file)
        print(file.name, f"{file.stat().st_size:,} bytes")


if __name__ == "__main__":
    renew()
