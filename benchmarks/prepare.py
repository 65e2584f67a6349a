"""Speed and memory of `kanana prepare`'s conversion: MB of text per second by workers, and many small files.

    python benchmarks/prepare.py --input 'documents/*.jsonl.gz' --megabytes 60 --small 100000

Writes the documents of `--input` to temporary files as jsonl (500 in each), and their first words to `--small`
files of text; converts both with each number of workers, and checks that all give the same bytes. Memory is the peak of
the process that was started and of its largest worker (resident set, `getrusage`).
"""

import argparse
import hashlib
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from kanana_jax.data.read import records

_PROGRAM = """
import json, pathlib, resource, sys, time

from kanana_jax.data.read import sources
if __name__ == "__main__":
    place, cache, workers = sys.argv[1:]
    began, own = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    before = own.ru_utime + own.ru_stime
    made = sources.prepare_all({"s": sources.SourceConfig(place, "ko")}, pathlib.Path(cache), int(workers))["s"]
    seconds = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak, cpu = [one.ru_maxrss for one in used], sum(one.ru_utime + one.ru_stime for one in used) - before
    size = sum(made.index[split]["bytes"] for split in ("train", "heldout"))
    print(json.dumps([seconds, size, sum(made.documents(s) for s in ("train", "heldout")), *peak, cpu]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="file, folder or glob of documents")
    parser.add_argument("--megabytes", type=float, default=60.0, help="of text in files of records")
    parser.add_argument("--small", type=int, default=100_000, help="files of text")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        if options.megabytes:
            _write_records(options.input, root / "records", options.megabytes * 1e6)
        if options.small:
            _write_small(options.input, root / "small", options.small)
        (root / "program.py").write_text(_PROGRAM, encoding="utf-8")
        for what in (name for name in ("records", "small") if (root / name).is_dir()):
            digests = set()
            for workers in options.workers:
                cache = root / f"{what}-{workers}"
                _show(what, workers, root, cache)
                digests.add(_digest(cache))
            print(f"{what}: the bytes of all runs are {'equal' if len(digests) == 1 else 'NOT equal'}", flush=True)


def _show(what: str, workers: int, root: pathlib.Path, cache: pathlib.Path) -> None:
    for start in ("converted", "found again"):
        command = [sys.executable, str(root / "program.py"), str(root / what), str(cache), str(workers)]
        began = time.perf_counter()
        output = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
        seconds, size, documents, own, child, cpu = json.loads(output.splitlines()[-1])
        whole = time.perf_counter() - began
        rate = size / 1e6 / seconds
        print(
            f"{what}, {workers} workers, {start}: {documents:,} documents, {size / 1e6:.1f} MB of text in "
            f"{seconds:.1f} s ({rate:.1f} MB/s; {cpu:.1f} s of CPU; {whole:.1f} s with the start of Python), "
            f"peak {own / 1024:.0f} MiB, largest worker {child / 1024:.0f} MiB",
            flush=True,
        )


def _texts(place: str) -> itertools.cycle:
    return itertools.cycle([item for item in records.read(place, source="s") if isinstance(item, dict)])


def _write_records(place: str, folder: pathlib.Path, size: float) -> None:
    folder.mkdir()
    written, file, documents = 0, None, _texts(place)
    for number in itertools.count():
        if written >= size:
            break
        if number % 500 == 0:
            file = (folder / f"{number:08d}.jsonl").open("w", encoding="utf-8")
        record = next(documents)
        assert file is not None
        file.write(json.dumps({"id": f"{number}", "text": record["text"]}, ensure_ascii=False) + "\n")
        written += len(record["text"].encode())


def _write_small(place: str, folder: pathlib.Path, count: int) -> None:
    documents = _texts(place)
    for number in range(count):
        below = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            below.mkdir(parents=True)
        with open(f"{below}/{number:06d}.txt", "w", encoding="utf-8") as file:
            file.write(f"{number}. {next(documents)['text'][:400]}")


def _digest(cache: pathlib.Path) -> str:
    digest = hashlib.blake2b()
    for file in sorted(cache.glob("*/*")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
