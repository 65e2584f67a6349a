"""Starting many processes, and what they tell each other outside the training step."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kanana_jax.config import UserError


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """Who takes part.

    Attributes:
      coordinator: `host:port` of process 0; empty on one process, and on TPU pods, which know it.
      num_processes, process_id: as `jax.distributed.initialize` wants them; −1: found out by JAX.
      timeout_s: seconds to wait for everyone.
    """

    coordinator: str = ""
    num_processes: int = -1
    process_id: int = -1
    timeout_s: int = 300


def start(config: ProcessConfig) -> None:
    """Joins the other processes; call it before anything touches a device.

    Raises:
      UserError: not all came in time; names who is missing as far as process 0 knows.
    """
    if config.num_processes == 1 or (not config.coordinator and config.num_processes == -1):
        return
    known = {"num_processes": config.num_processes, "process_id": config.process_id}
    try:
        jax.distributed.initialize(
            coordinator_address=config.coordinator or None,
            initialization_timeout=config.timeout_s,
            **{name: value for name, value in known.items() if value >= 0},
        )
    except Exception as error:
        raise UserError(
            f"process {config.process_id} of {config.num_processes} could not join at {config.coordinator} within "
            f"{config.timeout_s} s ({str(error).strip().splitlines()[0][:200]}): "
            "start the missing processes, or free the port"
        ) from error
    _await_everyone(config)


def _await_everyone(config: ProcessConfig) -> None:
    """A roll-call, so that the log can name who is missing."""
    from jax._src.distributed import global_state

    client = global_state.client
    if client is None:
        return
    me, everyone = jax.process_index(), jax.process_count()
    client.key_value_set(f"kanana/present/{me}", "1", allow_overwrite=True)
    missing = []
    for process in range(everyone):
        try:
            client.blocking_key_value_get(f"kanana/present/{process}", config.timeout_s * 1000)
        except Exception:
            missing.append(process)
    if missing:
        raise UserError(
            f"processes {missing} of {everyone} did not come within {config.timeout_s} s: look at their logs"
        )


def merge_states(local: dict[str, Any]) -> dict[str, Any]:
    """The union of every process's JSON dict (keys that several hold are equal), on all of them."""
    if jax.process_count() == 1:
        return local
    data = np.frombuffer(json.dumps(local).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    merged: dict[str, Any] = {}
    for row, size in zip(multihost_utils.process_allgather(padded), np.asarray(sizes).reshape(-1)):
        merged |= json.loads(bytes(np.asarray(row, np.uint8)[: int(size)]))
    return merged
