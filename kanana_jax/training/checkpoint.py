"""Asynchronous, sharded, atomic checkpoints through Orbax: state and data position together."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN, PreservationPolicy

from kanana_jax.errors import UserError
from kanana_jax.files import is_remote, sync, sync_tree, write_json
from kanana_jax.files.objects import explained, file_system
from kanana_jax.parallel import multihost
from kanana_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoint schedule and retention.

    Attributes:
      every: steps between checkpoints.
      keep_last: number of newest checkpoints kept.
      keep_best: number of best checkpoints kept, by the stage's score; 0: none. Otherwise each evaluation saves one.
    """

    every: int = 500
    keep_last: int = 2
    keep_best: int = 0

    def __post_init__(self):
        if self.every < 1 or self.keep_last < 1:
            raise ValueError("checkpoint.every and checkpoint.keep_last must be at least 1")


class Checkpoints:
    """`DIR/<stage>/checkpoints/<step>/{state,data}`; the step is the number of batches consumed.

    Next to them lies `metrics`, the loss by which the best are chosen, if the step was evaluated.
    """

    def __init__(self, folder: pathlib.Path, config: CheckpointConfig):
        self._remote = is_remote(folder)
        self.folder = _of_orbax(folder) if self._remote else pathlib.Path(folder).absolute()
        self._keeps_best = config.keep_best > 0
        policies: list[PreservationPolicy] = [LatestN(config.keep_last)]
        if config.keep_best:
            policies.append(
                BestN(get_metric_fn=_loss, reverse=True, n=config.keep_best, keep_checkpoints_without_metrics=False)
            )
        self._begun: int | None = None
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=AnyPreservationPolicy(policies),
                    # The policy does the choosing; but without this, Orbax writes no metrics to disk.
                    best_fn=_loss if config.keep_best else None,
                    best_mode="min",
                    cleanup_tmp_directories=True,
                    enable_async_checkpointing=True,
                ),
            )
        except Exception as error:
            if self._remote:
                raise explained(str(self.folder), "read", error) from error
            raise UserError(
                f"{self.folder} cannot be opened ({first_line(error)}): remove the damaged checkpoint in it"
            ) from error

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, data: dict[str, Any], loss: float | None = None) -> None:
        """Begins a save; returns once the arrays are copied, and writes in the background.

        Args:
          data: JSON.
          loss: of the evaluation at this step, lower is better; None: it was not evaluated.

        Raises:
          UserError: this save or the previous one could not be written (full disk, permissions);
            finished checkpoints are untouched.
        """
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state._asdict()),
                    data=ocp.args.JsonSave({"data": data, "digest": digest(step, data)}),
                ),
                metrics=None if loss is None else {"loss": loss},
                force=True,
            )
            self._sync(step)  # which has waited for the save before this one
        except Exception as error:
            raise self._explained(error, step) from error

    def judged(self, step: int, loss: float) -> None:
        """Records the loss of a checkpoint that was saved before it was evaluated; every process calls it."""
        if not self._keeps_best:
            return
        if jax.process_index() == 0 and (self.folder / str(step)).is_dir():
            file = self.folder / str(step) / "metrics" / "metrics"
            if self._remote:
                file.write_text(json.dumps({"loss": loss}), encoding="utf-8")
            else:
                write_json(pathlib.Path(file), {"loss": loss})
        multihost.barrier("checkpoint judged")
        self._manager.reload()

    def wait(self) -> None:
        """Blocks until every save has ended; raises like `save`."""
        try:
            self._manager.wait_until_finished()
            self._sync(None)
        except Exception as error:
            raise self._explained(error, self.latest()) from error

    def restore(self, step: int, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State with the shapes, dtypes and shardings of `target`, and the data position.

        Raises:
          UserError: unreadable checkpoint, or one of another architecture.
        """
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(target._asdict()), data=ocp.args.JsonRestore()),
            )
        except Exception as error:
            raise UserError(
                f"checkpoint {self.folder / str(step)} cannot be restored into this model "
                f"({first_line(error)}): use the config it was written with or another workdir, or, if it is damaged, "
                "remove that folder, and the run resumes from the previous one"
            ) from error
        data = restored["data"]
        noted = digest(step, data)
        if not isinstance(data, dict) or not data or not all(key.isdigit() for key in data):  # older ones: by lane
            data, noted = (data.get("data"), data.get("digest")) if isinstance(data, dict) else (None, None)
        if not isinstance(data, dict) or noted != digest(step, data):
            raise UserError(
                f"checkpoint {self.folder / str(step)}: its data position is not the one that was written: remove that "
                "folder, and the run resumes from the previous one"
            )
        state = TrainState(**restored["state"])
        check_shapes(state, target, self.folder / str(step))
        return state, data

    def preempted(self, step: int) -> bool:
        """True when the cluster announced that this job ends (agreed by all hosts)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def _sync(self, begun: int | None) -> None:
        """Flushes the save under way to disk, which Orbax leaves to the system, and notes the one just begun."""
        before, self._begun = self._begun, begun
        if self._remote or before is None or jax.process_index():
            return
        folder = pathlib.Path(self.folder)
        if (folder / str(before)).is_dir():
            with contextlib.suppress(FileNotFoundError):  # Orbax may be removing it by now: newer ones are kept
                sync_tree(folder / str(before))
            sync(folder)

    def close(self) -> None:
        self._manager.close()

    def _explained(self, error: Exception, step: int | None) -> UserError:
        text = str(error)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            mark in text for mark in ("No space left", "ENOSPC", "RESOURCE_EXHAUSTED", "File too large", "quota")
        )
        reason = "the disk is full" if full else first_line(error)
        kept = self._manager.latest_step()
        if self._remote:
            return UserError(
                f"checkpoint of step {step} is incomplete in {self.folder}; the last complete one, from which the same "
                f"command resumes, is of step {kept}: {explained(str(self.folder), 'write', error)}"
            )
        return UserError(
            f"checkpoint of step {step} could not be written to {self.folder} ({reason}); "
            f"the last complete one is step {kept}: free space or fix the folder, then run the same command again"
        )


def _of_orbax(folder: pathlib.Path) -> epath.Path:
    """A bucket's folder as Orbax takes it: through fsspec, and never from a list of names that is kept in memory."""
    os.environ.setdefault("EPATH_USE_TF", "false")
    file_system("gs")  # reports a missing package
    import fsspec.config

    for protocol in ("gs", "gcs"):
        fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
    return epath.Path(str(folder))


def digest(step: int, data: Any) -> str:
    """Hash of a data position and its step."""
    return hashlib.sha256(json.dumps([step, data], sort_keys=True).encode()).hexdigest()[:16]


def _loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def first_line(error: Exception) -> str:
    """An error's kind and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def check_shapes(state: TrainState, target: TrainState, where: object) -> None:
    """Raises UserError where a restored array has another shape than the model's."""
    wanted = jax.tree_util.tree_leaves_with_path(target)
    for (path, want), have in zip(wanted, jax.tree.leaves(state)):
        if want.shape != have.shape:
            raise UserError(
                f"checkpoint {where} has another architecture: {jax.tree_util.keystr(path)} has shape "
                f"{tuple(have.shape)}, this config's model {tuple(want.shape)}"
            )
