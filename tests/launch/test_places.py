"""Who am I, which flags, and templates that parse; formats as JAX's own cluster detection documents them."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from kanana_jax.launch import cluster, gcloud, xla_flags  # noqa: E402
from kanana_jax.launch.cluster import Place, found, given  # noqa: E402

from kanana_jax.errors import ConfigError  # noqa: E402
from kanana_jax.parallel.line import SECRET  # noqa: E402


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-015],host2", "node001"),
        ("node[001,007-015],host2", "node001"),
        ("gpu-a-[3-4]", "gpu-a-3"),
    ],
)
def test_first_node_of_slurm(nodes, first):
    assert cluster.first_node(nodes) == first
    env = dict(SLURM_STEP_NODELIST=nodes, SLURM_PROCID="3", SLURM_NTASKS="4", SLURM_JOB_ID="2049")
    assert found(env) == Place(first, 61442, 4, 3)


def test_two_slices_of_cloud_tpu_vms():
    attributes = {
        "worker-network-endpoints": "unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6",
        "agent-worker-number": "1",
        "tpu-env": "ACCELERATOR_TYPE: 'v5p-16'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
        "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n",
    }
    assert found({}, lambda key: attributes.get(key, "")) == Place("10.0.0.1", cluster.PORT, 4, 3)
    attributes |= {"worker-network-endpoints": "host-a,host-b", "tpu-env": ""}
    assert found({}, lambda key: attributes.get(key, "")) == Place("host-a", cluster.PORT, 2, 1)


def test_gke_and_nowhere():
    env = dict(TPU_WORKER_HOSTNAMES="a.x,b.x", TPU_WORKER_ID="1", MEGASCALE_NUM_SLICES="3", MEGASCALE_SLICE_ID="2")
    assert found(env | dict(MEGASCALE_COORDINATOR_ADDRESS="run-0.x")) == Place("run-0.x", cluster.PORT, 6, 5)
    assert found({}, lambda key: "") == Place()
    assert given("h:1234", 2, 1) == Place("h", 1234, 2, 1)
    for wrong in (("h", 2, 0), ("h:1234", 2, 2)):
        with pytest.raises(ConfigError):
            given(*wrong)


def test_flags_respect_what_is_set_and_go_to_the_right_compiler():
    given = "--xla_tpu_overlap_compute_collective_tc=false"
    value = xla_flags.environment("v5p", {"LIBTPU_INIT_ARGS": given})["LIBTPU_INIT_ARGS"]
    assert value.startswith(given) and value.count("xla_tpu_overlap_compute_collective_tc") == 1
    assert set(xla_flags.environment("h100", {})) == {"XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION"}
    assert xla_flags.environment("", {}) == {}
    for chip, flags in xla_flags.CHIPS.items():
        assert len({flag.name for flag in flags}) == len(flags) and all(f.reason and f.source for f in flags)
        assert all(flag.text.startswith("--xla_") for flag in flags), chip
    assert {kind[0] for kind in gcloud.TYPES.values()} <= set(xla_flags.CHIPS)


@pytest.mark.parametrize(
    "type, slices, chips", [("v5p-128", 1, 64), ("v5litepod-16", 2, 32), ("v6e-256", 1, 256), ("v4-8", 1, 4)]
)
def test_chips_of_a_type(type, slices, chips):
    assert gcloud.Job("n", "", "", type, "", "", "", slices=slices).chips == chips


def test_slices_go_over_the_data_axis_unless_told_otherwise():
    assert gcloud.arguments((), 1) == ()
    assert gcloud.arguments(("--config.seed=1",), 2) == (
        "--config.mesh.slices=2",
        "--config.mesh.data=2",
        "--config.seed=1",
    )
    assert gcloud.arguments(("--config.mesh.data=4",), 2) == ("--config.mesh.slices=2", "--config.mesh.data=4")


def test_gke_template():
    (job,) = yaml.safe_load_all((ROOT / "launch/gke/jobset.yaml").read_text())
    assert job["kind"] == "JobSet" and job["spec"]["failurePolicy"]["maxRestarts"] > 0
    template = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert template["parallelism"] == template["completions"] and template["backoffLimit"] == 0
    (container,) = template["template"]["spec"]["containers"]
    command = container["command"]
    assert (ROOT / command[1]).is_file() and "--" in command
    assert (ROOT / command[command.index("--config") + 1].partition(":")[0]).is_file()


def test_slurm_and_docker_templates_name_what_is_there():
    slurm = (ROOT / "launch/slurm/train.sbatch").read_text()
    assert "launch/worker.py" in slurm and "#SBATCH --requeue" in slurm
    docker = (ROOT / "launch/docker/Dockerfile").read_text()
    for copied in re.findall(r"^COPY (.+) \S+$", docker, re.M):
        assert all((ROOT / name).exists() for name in copied.split()), copied


def test_hosts_trust_no_more_than_they_need():
    docker = (ROOT / "launch/docker/Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM \S+@sha256:[0-9a-f]{64}$", docker, re.M)
    assert re.findall(r"^USER (.+)$", docker, re.M)[-1] not in ("root", "0")
    (job,) = yaml.safe_load_all((ROOT / "launch/gke/jobset.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (variable,) = pod["containers"][0]["env"]
    assert variable["name"] == SECRET and "secretKeyRef" in variable["valueFrom"]
    assert pod["securityContext"]["runAsNonRoot"]
    slurm = (ROOT / "launch/slurm/train.sbatch").read_text(encoding="utf-8")
    assert re.search(rf"^export {SECRET}$", slurm, re.M) and SECRET not in re.search("srun .*", slurm)[0]
    job = gcloud.Job("n", "", "", "v5p-8", "b", "w", "c")
    assert "cloud-platform" not in " ".join(gcloud.create(job))
    setup = gcloud.setup(job)
    assert "--require-hashes -r launch/uv.txt" in setup and "curl" not in setup.partition("lsb_release")[2]
    pinned = (ROOT / "launch/uv.txt").read_text(encoding="utf-8")
    assert re.search(r"^uv==[\d.]+ \\$", pinned, re.M) and len(re.findall("--hash=sha256:[0-9a-f]{64}", pinned)) == 2


def test_workers_of_many_hosts_need_a_secret():
    command = [sys.executable, str(ROOT / "launch/worker.py"), "--coordinator", "localhost:1", "--num-processes", "2"]
    env = {name: value for name, value in os.environ.items() if name != SECRET}
    for secret, words in ((None, "KANANA_SECRET is not set"), ("short", "must have at least 16 characters")):
        done = subprocess.run(command, env=env | ({SECRET: secret} if secret else {}), capture_output=True)
        assert done.returncode == 2 and done.stderr.decode().startswith("worker: ") and words in done.stderr.decode()


def test_commands_in_the_guide_are_real():
    """Every `python launch/…` of the guide names a file and options that its parser knows."""
    text = pathlib.Path(ROOT / "docs/launch.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"python (launch/\w+\.py) ([^`\n]*)", text)
    assert commands
    for file, arguments in commands:
        source = (ROOT / file).read_text() + (ROOT / "launch/worker.py").read_text()
        for option in re.findall(r"(--[a-z-]+)(?=[ =]|$)", arguments.partition(" -- ")[0]):
            assert json.dumps(option) in source, (file, option)
