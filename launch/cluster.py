"""Participants of a run, and this process's rank: given, or detected on Slurm, GKE or a Cloud TPU VM."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping

from kanana_jax import endpoint
from kanana_jax.errors import ConfigError, UserError

PORT = 8476
Lookup = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class Place:
    """This process among all.

    Attributes:
      host: of process 0.
      port: of JAX's coordinator there; the watcher takes the next one.
      num_processes, process_id: as `jax.distributed.initialize` wants them.
    """

    host: str = "localhost"
    port: int = PORT
    num_processes: int = 1
    process_id: int = 0

    def __post_init__(self):
        if not 0 <= self.process_id < self.num_processes:
            raise ConfigError(
                f"--process-id {self.process_id} must be one of 0 … {self.num_processes - 1} (--num-processes − 1)"
            )


def given(coordinator: str, num_processes: int, process_id: int) -> Place:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError("--coordinator must be HOST:PORT, and goes with --num-processes and --process-id")
    return Place(host, int(port), num_processes, process_id)


def found(env: Mapping[str, str], lookup: Lookup | None = None) -> Place:
    """From the environment: Slurm, GKE, or a Cloud TPU VM's metadata server; else this process alone.

    Variables and formats are those that JAX itself reads (`jax/_src/clusters`).

    Args:
      lookup: returns an attribute of the machine, "" where there is none.
    """
    if "SLURM_PROCID" in env and "SLURM_STEP_NODELIST" in env:
        host = first_node(env["SLURM_STEP_NODELIST"])
        # Two jobs that share a node must not meet.
        port = 61440 + int(env.get("SLURM_JOB_ID", "0")) % 2048 * 2
        return Place(host, port, int(env["SLURM_NTASKS"]), int(env["SLURM_PROCID"]))
    if env.get("TPU_WORKER_HOSTNAMES") and env.get("TPU_WORKER_ID"):
        return _slices(env["TPU_WORKER_HOSTNAMES"].split(","), int(env["TPU_WORKER_ID"]), env)
    lookup = metadata if lookup is None else lookup
    endpoints = lookup("worker-network-endpoints")
    if not endpoints:
        return Place()
    # Either names, or name:id:address.
    hosts = [endpoint.split(":")[-1] for endpoint in endpoints.split(",")]
    return _slices(hosts, int(lookup("agent-worker-number") or 0), tpu_env(lookup("tpu-env")) | dict(env))


def _slices(hosts: list[str], worker: int, env: Mapping[str, str]) -> Place:
    """A place in one slice, or in one of many that the data-centre network joins."""
    slices, index = int(env.get("MEGASCALE_NUM_SLICES") or 1), int(env.get("MEGASCALE_SLICE_ID") or 0)
    host = (env.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    return Place(host, PORT, len(hosts) * slices, worker + index * len(hosts))


def first_node(nodes: str) -> str:
    """The first host of `node001`, `node001,host2`, `node[001-015],host2` or `node[001,007-015]`."""
    found = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    if found is None:
        raise ConfigError(f"SLURM_STEP_NODELIST '{nodes}' names no host")
    return found[1] + (found[2] or "")


def tpu_env(text: str) -> dict[str, str]:
    """Lines such as `MEGASCALE_NUM_SLICES: '2'`."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip().strip("'") for key, _, value in pairs}


def metadata(key: str) -> str:
    """An attribute of this Google Cloud machine, "" elsewhere."""
    if os.environ.get("TPU_SKIP_MDS_QUERY"):
        return ""
    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    service = endpoint.Service(f"http://{host}", allow_plain_http=True, timeout=5, attempts=1, max_bytes=1 << 20)
    path = f"/computeMetadata/v1/instance/attributes/{key}"
    try:
        return endpoint.get_text(service, path, {"Metadata-Flavor": "Google"}, direct=True)
    except UserError:
        return ""
