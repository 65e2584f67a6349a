"""The demo stage by stage: seconds, processor time, memory; and whether kills in some stages change its results.

    python benchmarks/demo.py --output runs/measured
    python benchmarks/demo.py --output runs/measured --profile quick
    python benchmarks/demo.py --output runs/measured --profile quick --kills stage2,student,online,contrastive,evaluated

Writes `runs/measured/demo.json`. A stage begins when its folder is there; what comes before the first stage (documents,
filter, tokenizer) is `prepared`. With --kills a second run of the same config gets SIGKILL within each named stage and
is started again; both folders are then compared as `benchmarks/kill_test.py` compares them: every file but times, logs
and compiled programs, byte by byte.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import kill_test

ROOT = pathlib.Path(__file__).parents[1]
EVERY = 0.2  # seconds between two looks


def start(options: argparse.Namespace, workdir: pathlib.Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "kanana_jax/__main__.py"), "run", "--config", options.config]
    command += ["--workdir", workdir.name, *([f"--config.profile={options.profile}"] if options.profile else [])]
    with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=workdir.parent, stdout=log, stderr=log, env=os.environ)


def used(pid: int) -> tuple[float, float]:
    """Processor seconds and peak GiB of memory of a process that lives."""
    ticks = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    seconds = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return seconds, peak / 2**20


def undisturbed(options: argparse.Namespace, workdir: pathlib.Path) -> dict[str, Any]:
    """Runs to the end; what each stage took."""
    process, began = start(options, workdir), time.monotonic()
    marks, last = [("prepared", 0.0, 0.0)], (0.0, 0.0)
    seen: set[str] = set()
    while process.poll() is None:
        time.sleep(EVERY)
        try:
            now = used(process.pid)
        except (OSError, IndexError):  # it has ended
            continue
        last = now[0], max(last[1], now[1])
        for stage in stages(workdir):
            if stage not in seen and (workdir / stage).is_dir():
                seen.add(stage)
                marks.append((stage, time.monotonic() - began, last[0]))
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}: see {workdir}.log")
    marks.append(("end", time.monotonic() - began, last[0]))
    rows = {
        name: {"seconds": round(after[1] - at, 1), "processor_seconds": round(after[2] - cpu, 1)}
        for (name, at, cpu), after in zip(marks, marks[1:])
    }
    return {"stages": rows, "seconds": round(marks[-1][1], 1), "processor_seconds": round(last[0], 1),
            "peak_gib": round(last[1], 2)}  # fmt: skip


def stages(workdir: pathlib.Path) -> list[str]:
    """Of the run that has begun."""
    file = workdir / "config.json"
    return json.loads(file.read_text(encoding="utf-8"))["config"]["stages"] if file.is_file() else []


def killed(options: argparse.Namespace, reference: pathlib.Path, times: dict[str, Any]) -> dict[str, Any]:
    """A run that is killed in the middle of each stage of `--kills`, and the files in which it differs."""
    workdir, done = reference.with_name("killed"), []
    shutil.rmtree(workdir, ignore_errors=True)
    if (reference / "compiled").is_dir():
        shutil.copytree(reference / "compiled", workdir / "compiled")
    for stage in options.kills.split(","):
        process = start(options, workdir)
        while process.poll() is None and not (workdir / stage).is_dir():
            time.sleep(EVERY)
        # Programs are compiled already, so that the middle comes sooner than in the first run.
        end = time.monotonic() + times["stages"][stage]["seconds"] / 4
        while process.poll() is None and time.monotonic() < end:
            time.sleep(EVERY)
        if process.poll() is not None:
            sys.exit(f"the run ended before it could be killed in '{stage}': see {workdir}.log")
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append([name for name in stages(workdir) if (workdir / name).is_dir()][-1])
    if start(options, workdir).wait():
        sys.exit(f"the run that was killed does not end: see {workdir}.log")
    return {"killed_in": done, "differ": kill_test.compare(reference, workdir)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs/tiny.py"))
    parser.add_argument("--profile", default="", help="of the config")
    parser.add_argument("--kills", default="", metavar="STAGE,STAGE", help="stages in which a second run is killed")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder of the workdirs and the figures")
    options = parser.parse_args()
    base = options.output.absolute()
    base.mkdir(parents=True, exist_ok=True)
    file, reference = base / "demo.json", base / "whole"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not found:
        shutil.rmtree(reference, ignore_errors=True)
        machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {time.strftime('%Y-%m-%d')}"
        found = {"machine": machine, "profile": options.profile, **undisturbed(options, reference)}
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if options.kills:
        found |= killed(options, reference, found)
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
