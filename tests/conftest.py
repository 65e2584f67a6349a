"""Eight virtual devices for every test; small real runs."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import signal
import sys

# Programs of tests run for moments and are compiled for minutes: LLVM's effort and MLIR's emitters of fusions are the
# larger part of a test (0.8 s of a core instead of 2.8 s for a step of `configs/tiny.py:test`). The second of these three
# flags is gone from jaxlib 0.11, which ends on a flag that it does not know.
_OLD = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
FLAGS = " ".join(
    [
        "--xla_backend_optimization_level=0",
        *(["--xla_cpu_use_fusion_emitters=false"] if _OLD else []),
        "--xla_cpu_parallel_codegen_split_count=1",  # the other worker has the other core
        # Collectives that a device runs side by side hold a thread each, and on two cores eight devices have eight: each
        # may then wait for one that has none, until XLA aborts the process. One after the other they hold one.
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",  # 40 s is little for a device on a busy core
    ]
)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]


@pytest.hookimpl(trylast=True)  # pytest's own orders by parameters
def pytest_collection_modifyitems(items):
    """Files of `data`, which take seconds each, come last: so all workers end together, though each takes whole files."""
    items.sort(key=lambda item: item.path.is_relative_to(ROOT / "tests/data"))


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory):
    """What one worker has compiled is not compiled again by another, nor by a process that a test starts.

    An entry that is read while another writes it cannot be decompressed: JAX then compiles the program.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks():
    """A run asks the disk to keep hundreds of small files, for 5 ms each; no test takes away the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _small_programs():
    """Half a program is compiled in half the time: steps as XLA_FLAGS has it, and few blocks of queries."""
    for module, name, value in (("training.loop", "_CPU_OPTIONS", None), ("models.attention", "XLA_BLOCKS", 2)):
        if f"kanana_jax.{module}" in sys.modules:  # imported by a test of this session
            setattr(sys.modules[f"kanana_jax.{module}"], name, value)


@pytest.fixture(scope="session")
def tiny_config():
    """`configs/tiny.py:test` with `a.b=value` overrides."""
    from kanana_jax import config as config_lib
    from kanana_jax.recipe import config as recipe_config

    def make(*overrides: str):
        config = config_lib.read_config_file(str(ROOT / "configs/tiny.py") + ":test")
        recipe_config.override(config, overrides)
        return config

    return make


@pytest.fixture
def no_reports(monkeypatch):
    """Runs of a test draw no report: seconds each. What fixtures of a module or session run has one."""
    from kanana_jax.recipe import run

    monkeypatch.setattr(run, "_report", lambda workdir: None)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """In float64."""
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def losses(workdir: pathlib.Path, stage: str = "stage1") -> list[float]:
    """Training losses by step, which must be 1, 2, 3 …"""
    rows = [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "eval" not in row]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    return [row["loss"] for row in steps]


@contextlib.contextmanager
def stopped_after(step: int):
    """Training inside ends by an exception once that step is logged, as by a crash between two checkpoints."""
    from kanana_jax.training import loop

    class Stop(Exception):
        pass

    original = loop._Run.digest

    def digest(self, at, values):
        original(self, at, values)
        if at == step:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop._Run, "digest", digest)
        yield


@contextlib.contextmanager
def copied_after(step: int, workdir: pathlib.Path, to: pathlib.Path, stage: str = ""):
    """Training inside, of that stage or of any, leaves at `to` what a crash would once that step is logged, and goes on."""
    from kanana_jax.training import loop

    original = loop._Run.digest

    def digest(self, at, values):
        original(self, at, values)
        if at == step and stage in ("", self.task.name):
            self.checkpoints.wait()
            shutil.copytree(workdir, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "digest", digest)
        yield


class Slow(Exception):
    """The guard's."""


@contextlib.contextmanager
def guard(seconds: int):
    """Ends what takes more seconds of the processor."""

    def stop(number, frame):
        raise Slow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
