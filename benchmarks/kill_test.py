"""SIGKILL at random moments, again and again: at the end every byte is as if nothing had happened.

    python benchmarks/kill_test.py --output kills --kills 100 --seed 0

Each job is run once undisturbed, then killed and started again until it ends, then compared file by file. What may
differ is named in `VARIES`: times, and the paths of the folder it was made in. Two of each job are also started at
once: one must be refused, and what the other writes must be whole. Passes are lines of `kills/passes.jsonl`; started
again, the script continues with the remaining kills.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
from kanana_jax.configs import tiny


def get_config():
    c = tiny.get_config("test")
    c.stages = ("stage1", "stage2", "upscaled", "deeper", "cached", "pruned", "student")
    mixture = dict(c.stage2.mixture)
    c.cached = dict(kind="cache_teacher", start="stage2", mixture=mixture)
    c.cached.cache_teacher = dict(k=8, tokens=4096, batch_tokens=512, seq_len=64, shard_bytes=8192)
    return c
"""
QUALITY = """
from ml_collections import ConfigDict


def get_config():
    classifier = dict(text="word", buckets=20_000, dim=8, epochs=4)
    loop = dict(pool=("documents.jsonl.gz",), lang="en", seed_documents=200, evaluation_documents=200,
                candidates=100, rounds=3)
    return ConfigDict(dict(quality=dict(classifier=classifier, loop=loop, labels="labels.jsonl")))
"""
# Not compared: times, and what libraries write for themselves.
PASSED_OVER = re.compile(r"compiled/|.*/events/|.*/checkpoints/|.*report\.html$|cost\.json$|.*\.lock$")
# Lines or values that hold a time or a path, and stand for nothing else.
VARIES = (
    rb'"(started|command|git_revision)": "[^"]*",?',
    rb'"starts": \[.*?\n \]',
    rb'"\d+:\d{15,}"',  # size and time of a file that a stage has written and another has read
)
TIMES = ("tokens_per_s", "mfu", "data_wait_s", "data_wait_share", "eta_s", "step_s", "filter_share", "sampling_wait_s")
STAGES = ("stage1", "stage2", "upscaled", "deeper", "cached", "pruned", "student")


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that writes into `PLACE`, and how many of a hundred kills are its."""

    name: str
    arguments: tuple[str, ...]
    share: int
    a_pass: int = 4  # kills before it may end
    stages: tuple[str, ...] = ()


JOBS = (
    Job("run", ("run", "--config", "config.py", "--workdir", "PLACE"), 46, 4, STAGES),
    Job("filter", ("filter", "--config", "data/en", "--input", "documents.jsonl.gz", "--output", "PLACE", "--signals",
                   "--keep-dropped", "--workers", "2"), 18),
    Job("dedup", ("dedup", "--input", "documents.jsonl.gz", "more.jsonl.gz", "--output", "PLACE"), 14),
    Job("quality train", ("quality", "train", "--config", "quality.py", "--output", "PLACE"), 12),
    Job("quality score", ("quality", "score", "model.bin", "--input", "documents.jsonl.gz", "--output",
                          "PLACE/scores.jsonl.gz"), 10),
)  # fmt: skip


def start(job: Job, base: pathlib.Path, place: str) -> subprocess.Popen:
    arguments = [a.replace("PLACE", place) for a in job.arguments]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "kanana_jax/__main__.py"), *arguments],
        cwd=base,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def compare(a: pathlib.Path, b: pathlib.Path) -> list[str]:
    """The files that differ, or are in one of the two folders only."""
    found: list[dict[str, bytes]] = []
    for folder in (a, b):
        contents = {}
        for file in sorted(folder.rglob("*")):
            name = str(file.relative_to(folder))
            if file.is_file() and not PASSED_OVER.match(name) and not _holds_paths(file, folder):
                data = file.read_bytes().replace(str(folder).encode(), b"PLACE").replace(folder.name.encode(), b"PLACE")
                if file.suffix == ".jsonl":  # the first step of a start has no times
                    rows = [json.loads(line) for line in data.splitlines()]
                    data = json.dumps([{k: v for k, v in row.items() if k not in TIMES} for row in rows]).encode()
                elif file.suffix == ".json":
                    if name.endswith(".origins.json") and b"PLACE" in data:
                        data = re.sub(rb'"digest": "[^"]*"', b"", data)  # of paths and times, too
                    for pattern in VARIES:
                        data = re.sub(pattern, b"", data, flags=re.S)
                contents[name] = data
        found.append(contents)
    one, two = found
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def _holds_paths(file: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether these are shards of a file in the folder, whose records know its path; their index has their digest."""
    index = file.with_name("index.json")
    return file.suffix == ".array_record" and index.is_file() and str(folder) in index.read_text(encoding="utf-8")


def prepare(base: pathlib.Path, count: int = 1500) -> None:
    """Writes the inputs: 8 and 3 times `count` documents, near duplicates among them, and labels of all."""
    import gzip

    from kanana_jax.data.read import records

    (base / "config.py").write_text(CONFIG, encoding="utf-8")
    (base / "quality.py").write_text(QUALITY, encoding="utf-8")
    news = records.read(f"microworld://news/en?size=4000&count={count}", source="")
    texts = [r for r in news if isinstance(r, dict)]
    rng = random.Random(0)
    labels = []
    for name, copies in (("documents", 8), ("more", 3)):
        with gzip.open(base / f"{name}.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as file:
            for copy in range(copies):
                for i, record in enumerate(texts):
                    words = record["text"].split(" ")
                    for _ in range(copy):
                        words[rng.randrange(len(words))] = f"word{rng.randrange(99)}"
                    identity = f"{name}-{copy}-{i}"
                    labels.append({"id": identity, "label": 5 if "library" in words or i % 5 == 0 else 0})
                    file.write(json.dumps({"id": identity, "lang": "en", "text": " ".join(words)}) + "\n")
    with (base / "labels.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(label) + "\n" for label in labels)


def undisturbed(job: Job, base: pathlib.Path) -> dict[str, float]:
    """Makes the reference once; returns the seconds it took, and at which second each stage began."""
    place, told = f"{job.name.replace(' ', '_')}.reference", base / f"{job.name.replace(' ', '_')}.seconds.json"
    if told.is_file():
        return json.loads(told.read_text(encoding="utf-8"))
    shutil.rmtree(base / place, ignore_errors=True)
    began, seen = time.monotonic(), {"start": 0.0}
    process = start(job, base, place)
    while process.poll() is None:
        for stage in job.stages:
            if stage not in seen and (base / place / stage).is_dir():
                seen[stage] = time.monotonic() - began
        time.sleep(0.02)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    seen["end"] = time.monotonic() - began
    told.write_text(json.dumps(seen), encoding="utf-8")
    return seen


def one_pass(job: Job, base: pathlib.Path, seconds: dict[str, float], rng: random.Random, left: int) -> dict:
    """Kills the job up to `job.a_pass` times, lets it end, and compares."""
    name = job.name.replace(" ", "_")
    place, reference = base / f"{name}.disturbed", base / f"{name}.reference"
    shutil.rmtree(place, ignore_errors=True)
    if job.stages and (reference / "compiled").is_dir():
        shutil.copytree(reference / "compiled", place / "compiled")
    kills: list[str] = []
    names = [n for n in seconds if n != "end"]
    spans = {n: seconds[m] - seconds[n] for n, m in zip(names, [*names[1:], "end"])}
    while len(kills) < min(job.a_pass, left):
        ahead = [n for n in names if n == "start" or not (place / n).is_dir()] if job.stages else ["start"]
        target = rng.choice(ahead)
        process = start(job, base, place.name)
        while process.poll() is None and target != "start" and not (place / target).is_dir():
            time.sleep(0.01)
        moment = time.monotonic() + rng.uniform(0.0, spans[target] if job.stages else 0.9 * seconds["end"])
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.005)
        if process.poll() is not None:
            if process.returncode != 0:
                return {"job": job.name, "kills": kills, "failed": process.stderr.read() if process.stderr else ""}
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills.append(next((n for n in reversed(names) if n != "start" and (place / n).is_dir()), "start"))
    process = start(job, base, place.name)
    _, error = process.communicate()
    if process.returncode != 0:
        return {"job": job.name, "kills": kills, "failed": error}
    return {"job": job.name, "kills": kills, "differ": compare(reference, place)}


def two_at_once(job: Job, base: pathlib.Path) -> dict:
    """Two starts of one command: one is refused, and what is written is whole."""
    name = job.name.replace(" ", "_")
    place = base / f"{name}.twice"
    shutil.rmtree(place, ignore_errors=True)
    if job.stages and (base / f"{name}.reference/compiled").is_dir():
        shutil.copytree(base / f"{name}.reference/compiled", place / "compiled")
    both = [start(job, base, place.name) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    refused = [error for error in errors if "is in use by process" in error]
    differ = compare(base / f"{name}.reference", place)
    return {"job": job.name, "twice": codes, "refused": len(refused), "differ": differ}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default=",".join(job.name for job in JOBS))
    options = parser.parse_args()
    base = options.output.absolute()
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "labels.jsonl").is_file():
        prepare(base)
    passes = base / "passes.jsonl"
    known = [json.loads(line) for line in passes.read_text(encoding="utf-8").splitlines()] if passes.is_file() else []
    jobs = [job for job in JOBS if job.name in options.jobs.split(",")]

    def note(found: dict) -> None:
        known.append(found)
        with passes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
        if "failed" in found:
            sys.exit(f"{found['job']} failed")

    for job in sorted(jobs, key=lambda job: job.share):
        if job.name == "quality score" and not (base / "model.bin").is_file():
            undisturbed(next(j for j in JOBS if j.name == "quality train"), base)
            shutil.copyfile(base / "quality_train.reference/round2/model.bin", base / "model.bin")
        seconds = undisturbed(job, base)
        if not any(p["job"] == job.name and "twice" in p for p in known):
            note(two_at_once(job, base))
        wanted = round(options.kills * job.share / sum(job.share for job in JOBS))
        while (left := wanted - sum(len(p.get("kills", ())) for p in known if p["job"] == job.name)) > 0:
            number = sum(p["job"] == job.name for p in known)
            note(one_pass(job, base, seconds, random.Random(f"{options.seed} {job.name} {number}"), left))
    for job in jobs:
        own = [p for p in known if p["job"] == job.name]
        kills = [at for p in own for at in p.get("kills", ())]
        bad = [p for p in own if p.get("differ") or "failed" in p or p.get("refused", 1) != 1]
        hit = {stage: kills.count(stage) for stage in dict.fromkeys(kills)} if job.stages else ""
        print(f"{job.name}: {len(kills)} kills {hit}, {len(own)} results, {len(bad)} that differ or failed")
    print(f"{platform.node()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, seed {options.seed}")


if __name__ == "__main__":
    main()
