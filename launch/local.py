"""Many processes on this machine, as the hosts of a pod would run: for tests, and to try a recipe's mesh for nothing.

    python launch/local.py --processes 4 --devices 2 -- --config configs/tiny.py:test --workdir runs/four \\
        --config.mesh.fsdp=4 --config.mesh.data=2

Each process is a `launch/worker.py` with virtual CPU devices. Options before `--` that are not known here go to it.
"""

import argparse
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

ROOT = pathlib.Path(__file__).resolve().parents[1]
DONE, BAD_CONFIG = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="virtual devices of each process")
    parser.add_argument("--restarts", type=int, default=0, metavar="N", help="number of restarts of a failed run")
    options, more = parser.parse_known_args(arguments[:cut])
    for attempt in range(options.restarts + 1):
        code = _run(options.processes, options.devices, [*more, "--", *arguments[cut + 1 :]])
        if code in (DONE, BAD_CONFIG) or attempt == options.restarts:
            break
        print(f"local: restart {attempt + 1} of {options.restarts}", flush=True)
    return code


def _run(processes: int, devices: int, arguments: list[str]) -> int:
    """One attempt; the exit code on which the processes agree, or that of the first that has another."""
    port = free_port()
    # The second flag runs collectives one after the other: side by side each holds a thread, and virtual devices on few
    # cores may run out of threads and wait for one another until XLA aborts the process.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_enable_concurrency_optimized_scheduler=false"
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "KANANA_SECRET": secrets.token_hex(32),  # parallel/line.py
    }
    place = ["--coordinator", f"localhost:{port}", "--num-processes", str(processes)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "launch/worker.py"), *place, "--process-id", str(i), *arguments], env=env
        )
        for i in range(processes)
    ]

    def forward(signum: int, frame: FrameType | None) -> None:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)

    handled = (s for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN)
    before = {signum: signal.signal(signum, forward) for signum in handled}
    codes = [worker.wait() for worker in workers]
    for signum, handler in before.items():
        signal.signal(signum, handler)
    return next((code for code in codes if code), DONE)


def free_port() -> int:
    """The first of two neighbouring free ports."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("", port + 1))
            except (OSError, OverflowError):
                continue
            return port


if __name__ == "__main__":
    sys.exit(main())
