"""Two processes of two devices each: the losses, data and model of one process; a missing one is named."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
from conftest import FLAGS, ROOT, losses

from kanana_jax import config as config_lib
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import run as recipe
from kanana_jax.recipe.config import override

CONFIG = ROOT / "tests/multiprocess/small.py"
OVERRIDES = (
    *("stage1.model.num_layers=2", "stage1.train.tokens=2_880"),
    *("sources.dialogue.holdout=0.2", "stage1.train.eval_every=3"),
)


def _command(workdir, mesh, *more):
    return [
        sys.executable,
        "-m",
        "kanana_jax",
        "run",
        "--config",
        str(CONFIG),
        "--workdir",
        str(workdir),
        *(f"--config.{override}" for override in OVERRIDES),
        *mesh,
        *more,
    ]


def _run(commands, devices):
    flags = f"--xla_force_host_platform_device_count={devices} {FLAGS}"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    env["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    processes = [
        subprocess.Popen(c, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    return [(p.communicate(timeout=400)[1], p.returncode) for p in processes]


def _judged(workdir):
    """Bits per byte of the held-out text at each evaluation."""
    rows = [json.loads(line) for line in (workdir / "stage1/metrics.jsonl").read_text().splitlines()]
    return [row["eval"]["bits_per_byte"]["lang/en"] for row in rows if "eval" in row]


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _join(port, index, count, timeout=120):
    return [
        "--coordinator",
        f"127.0.0.1:{port}",
        "--num-processes",
        str(count),
        "--process-id",
        str(index),
        "--join-timeout",
        str(timeout),
    ]


def test_two_processes_equal_one(tmp_path):
    config = config_lib.read_config_file(str(CONFIG))
    override(config, OVERRIDES)
    recipe.run(config, tmp_path / "one", devices=jax.devices()[:1])
    port = _free_port()
    mesh = ["--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
    for error, code in _run([_command(tmp_path / "two", mesh, *_join(port, i, 2)) for i in range(2)], 2):
        assert code == 0, error
    assert len(losses(tmp_path / "one")) == 6
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-5)
    judged = [_judged(tmp_path / name) for name in ("one", "two")]
    assert len(judged[0]) == 2
    np.testing.assert_allclose(*judged, rtol=1e-4)
    for file in ("data_state.json", "data_report.json"):
        assert (tmp_path / "two/stage1" / file).read_text() == (tmp_path / "one/stage1" / file).read_text()
    # Two processes wrote the layers of the model; one reads them all.
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    one, two = (
        model_folder.load_params(model_folder.find(tmp_path / name / "stage1"), Runtime(), mesh)
        for name in ("one", "two")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.abs(a - b).mean(), 0, atol=1e-5), one, two)


def test_a_missing_process_is_named_in_time(tmp_path):
    ((error, code),) = _run([_command(tmp_path / "w", [], *_join(_free_port(), 0, 2, timeout=4))], 1)
    last = error.strip().splitlines()[-1]
    assert code == 1 and last.startswith("kanana: process 1 of 2 did not reach") and "4 s" in last
