"""Hostile documents, records, tables and classifiers through every reader: what is not read is told in one sentence.

    python benchmarks/fuzz_inputs.py --count 10000 [--seed 0] [--only documents records parquet scores classifiers]

A case is a whole input that was cut, flipped, repeated or nested, or a mixture of hostile pieces. It must end in a
result, in broken lines or in an error of ours, within a minute of the processor. Prints counts by outcome; exits 1 at
the first traceback.
"""

import argparse
import collections
import gzip
import io
import json
import pathlib
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

import numpy as np
import pyarrow
import zstandard
from pyarrow import parquet

from kanana_jax.data.extract import FORMATS, extract
from kanana_jax.data.quality.classifier import OTHER, Classifier, ClassifierConfig, train
from kanana_jax.data.quality.quality_model import GOOD, QualityModel
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import UserError
from kanana_jax.observatory import tables

PIECES = (
    *(
        "<p>",
        "</p>",
        "<table><tr><td>",
        "<!--",
        "{{a|",
        "}}",
        "[[",
        "{|\n|",
        "\\begin{a}",
        "\\footnote{",
        "$",
        "\\def\\a",
    ),
    *(
        "```\n",
        "::: a",
        "[!",
        ".. note::",
        ":a:`b`",
        'msgid "',
        '{"cells":[',
        "《",
        "※［＃",
        "%PDF-1.7",
        "\0",
        "\ud800",
    ),
    *(
        "가",
        "a",
        "1",
        "\u202e",
        "\u200b",
        "\n",
        "\t",
        "<script>",
        "&#",
        "</s>",
        "__label__good",
        "{",
        "}",
        "[",
        "]",
        '"',
    ),
    *("\\def\\a", "\0", "\ud800", "]", '"', "\\", "|", "=", "*"),
)
TEXT = "The council met in 1999; 그는 학교를 졸업했다. 彼は大学を卒業した。"


def pieces(rng: random.Random) -> str:
    """A mixture, or what begins something, a long run, and an end that does not close it."""
    if rng.random() < 0.5:
        return "".join(rng.choices(PIECES, k=rng.randint(1, 200)))
    unit = rng.choice((*PIECES, " ", "  ", "\n "))
    return rng.choice(PIECES) + unit * rng.randint(1, 4000) + rng.choice(PIECES)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy that is cut, flipped, grown, repeated or has a hole."""
    data, kind = bytearray(data), rng.randrange(5)
    at = rng.randrange(max(len(data), 1))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        data[at:at] = rng.randbytes(rng.randint(1, 64))
    elif kind == 3:
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0"])
    else:
        del data[at : at + rng.randint(1, 200)]
    return bytes(data)


def documents(rng: random.Random, folder: pathlib.Path) -> str:
    form, text = rng.choice(sorted(FORMATS)), pieces(rng)
    data = text.encode("utf-8", "surrogatepass") if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 3000))
    if form == "latex" and rng.random() < 0.3:
        data = damaged(gzip.compress(data), rng)
    return "text" if extract(data, form, "x").text else "empty"


def value(rng: random.Random, depth: int = 0) -> str:
    """JSON, more or less."""
    kind = rng.randrange(9)
    if kind == 0:
        return "[" * (n := rng.choice([1, 50, 99, 101, 900, 5000])) + "1" + "]" * n
    if kind == 1:
        return rng.choice(["NaN", "-Infinity", "1e999", "9" * 5000, "1" + "0" * 30, "-0", "1.5", "true", "null", "nul"])
    if kind == 2 and depth < 4:
        keys = [json.dumps(rng.choice(["id", "text", "lang", "a", "\ud800"])) for _ in range(rng.randint(0, 4))]
        return "{" + ",".join(f"{key}:{value(rng, depth + 1)}" for key in keys) + "}"
    return json.dumps(rng.choice([TEXT, "", "\ud800", pieces(rng), "ko-KR", "x"]))


def lines(rng: random.Random) -> bytes:
    out = []
    for _ in range(rng.randint(1, 6)):
        fields = {"text": json.dumps(TEXT) if rng.random() < 0.6 else value(rng)}
        for key in ("id", "lang", "source", "url", "meta", "messages", "licence"):
            if rng.random() < 0.3:
                fields[key] = value(rng)
        row = "{" + ",".join(f"{json.dumps(key)}:{item}" for key, item in fields.items()) + "}"
        out.append(row.encode("utf-8", "surrogatepass"))
    data = b"\n".join(out)
    return damaged(data, rng) if rng.random() < 0.3 else data


def read(path: pathlib.Path) -> str:
    found = list(records.read(str(path), source="s"))
    for item in found:
        if not isinstance(item, Broken):
            json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
    return "broken lines" if any(isinstance(item, Broken) for item in found) else "records"


def records_of_lines(rng: random.Random, folder: pathlib.Path) -> str:
    form, data = rng.choice([".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt"]), lines(rng)
    if form.endswith((".gz", ".zst")):
        data = gzip.compress(data, 1) if form.endswith(".gz") else zstandard.compress(data)
        data = damaged(data, rng) if rng.random() < 0.3 else data
    (path := folder / f"a{form}").write_bytes(data)
    return read(path)


def parquet_tables(rng: random.Random, folder: pathlib.Path) -> str:
    columns = {
        "text": [TEXT] * 20,
        "n": [float("nan"), 1.0] * 10,
        "l": [[1, None], []] * 10,
        "m": [{"a": "b", "t": [TEXT]}] * 20,
        "b": [b"\xff", b"x"] * 10,
    }
    chosen = {key: columns[key] for key in columns if key == "text" or rng.random() < 0.5}
    stream = io.BytesIO()
    parquet.write_table(
        pyarrow.table(chosen),
        stream,
        compression=rng.choice(["zstd", "snappy", "none", "gzip"]),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(["1.0", "2.0"]),
    )
    (path := folder / "a.parquet").write_bytes(damaged(stream.getvalue(), rng))
    return read(path)


def score_tables(rng: random.Random, folder: pathlib.Path) -> str:
    place = tables.shipped()
    for name in ("scores.csv", "models.csv", "tasks.csv"):
        data = (place / name).read_bytes()
        (folder / name).write_bytes(damaged(data, rng) if rng.random() < 0.6 else data)
    tables.read(folder / "scores.csv")
    return "table"


def classifiers(rng: random.Random, folder: pathlib.Path, model: bytes) -> str:
    (path := folder / "m.bin").write_bytes(damaged(model, rng))
    score = Classifier(QualityModel(str(path)))([TEXT])
    return "score" if np.isfinite(score[0]) else "none"


def whole_model(folder: pathlib.Path) -> bytes:
    config = ClassifierConfig(dim=4, buckets=100, epochs=1, min_count=1)
    train([TEXT, "spam casino"] * 20, [GOOD, OTHER] * 20, config, folder / "whole.bin")
    return (folder / "whole.bin").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = whole_model(folder)
        kinds: dict[str, Callable[[random.Random, pathlib.Path], str]] = {
            "documents": documents,
            "records": records_of_lines,
            "parquet": parquet_tables,
            "scores": score_tables,
            "classifiers": lambda rng, place: classifiers(rng, place, model),
        }
        for kind, case in kinds.items():
            if options.only and kind not in options.only:
                continue
            found: collections.Counter[str] = collections.Counter()
            for i in range(options.count):
                signal.setitimer(signal.ITIMER_VIRTUAL, 60)  # ends the process: nothing takes so long
                try:
                    found[case(random.Random(f"{options.seed} {kind} {i}"), folder)] += 1
                except (UserError, ValueError) as error:
                    if isinstance(error, ValueError) and kind != "documents":
                        traceback.print_exc()
                        sys.exit(f"{kind}, case {i}, seed {options.seed}")
                    assert str(error)
                    found["refused"] += 1
                except BaseException:
                    traceback.print_exc()
                    sys.exit(f"{kind}, case {i}, seed {options.seed}")
            print(kind, options.count, dict(found), flush=True)


if __name__ == "__main__":
    main()
