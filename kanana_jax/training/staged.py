"""Checkpoints in buckets that Orbax cannot write to: written to local disk, uploaded, and made valid by a manifest.

    STEP/state/…         the files that Orbax writes: each process its own shards, process 0 those that describe all
    STEP/data.json       the data position
    STEP/manifest.json   names, sizes and hashes (SHA-256) of all files, and the score; written last, removed first
    STEP/part-K          the list of files that process K has sent; only until there is a manifest

A step without a manifest does not exist; the next start removes it. Each process uploads its files from its own disk,
so the hosts need not share one. A restore copies all files to the host's cache, from which any number of processes
reads them.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from concurrent import futures
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from kanana_jax.errors import UserError
from kanana_jax.files import stage_down
from kanana_jax.files.objects import BucketPath, asking
from kanana_jax.files.staging import cache_folder, upload_file
from kanana_jax.parallel import multihost
from kanana_jax.training.checkpoint import CheckpointConfig, check_shapes, digest, first_line
from kanana_jax.training.step import TrainState

MANIFEST, DATA, STATE = "manifest.json", "data.json", "state"
_ALONE = ocp.options.MultiprocessingOptions(primary_host=None)
# Files that a process uploads at a time, each in parts of 50 MB.
_AT_ONCE = 4
# Seconds that processes wait for each other's uploads: the slowest takes as long as the others and longer.
_PATIENCE_S = 1800.0


class StagedCheckpoints:
    """Like `training.checkpoint.Checkpoints`, but in a bucket, through the local disk.

    Raises:
      UserError: the bucket cannot be reached; raised on every process.
    """

    def __init__(self, folder: pathlib.Path, config: CheckpointConfig):
        self.folder = cast(BucketPath, folder)
        self._config = config
        cache_folder().mkdir(parents=True, exist_ok=True)
        self._local = pathlib.Path(tempfile.mkdtemp(prefix="checkpoint-", dir=cache_folder()))
        # No process waits for another, whose files it would look for on its own disk.
        self._handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_ALONE)
        self._worker = futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: futures.Future[None] | None = None
        found: dict[str, Any] = {}
        if jax.process_index() == 0:
            try:
                found = {"losses": self._opened(), "token": secrets.token_hex(8)}
            except UserError as error:
                found = {"refusal": str(error)}
        found = multihost.merge_states(found)
        if "refusal" in found:
            raise UserError(found["refusal"])
        self._losses: dict[int, float | None] = {int(step): loss for step, loss in found["losses"].items()}
        self._token = found["token"]

    def _opened(self) -> dict[str, float | None]:
        """The loss of every complete checkpoint; everything else is removed."""
        steps: dict[str, bool] = {}
        for name in self.folder.objects():
            step, _, rest = name.partition("/")
            if step.isdigit():
                steps[step] = steps.get(step, False) or rest == MANIFEST
        for step, whole in steps.items():
            if not whole:
                (self.folder / step).rmtree(missing_ok=True)
        self._abandon()
        return {step: self._manifest(int(step)).get("loss") for step, whole in steps.items() if whole}

    def _abandon(self) -> None:
        """Aborts multipart uploads that a killed process left: the store does not list them, but bills them."""
        bucket, key = self.folder.bucket_and_key
        with asking(self.folder.address, "list"):
            found = self.folder.files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/")
            for left in found.get("Uploads", ()):
                upload = {"Bucket": bucket, "Key": left["Key"], "UploadId": left["UploadId"]}
                self.folder.files.call_s3("abort_multipart_upload", **upload)

    def _manifest(self, step: int) -> dict[str, Any]:
        file = self.folder / str(step) / MANIFEST
        try:
            found = json.loads(file.read_bytes())
            if not isinstance(found, dict) or not isinstance(found.get("files"), list):
                raise ValueError
        except (FileNotFoundError, ValueError) as error:
            raise UserError(
                f"{file} differs from what was written: remove {self.folder / str(step)}, and the run resumes from the "
                "previous checkpoint"
            ) from error
        return found

    def latest(self) -> int | None:
        return max(self._losses, default=None)

    def steps(self) -> list[int]:
        return sorted(self._losses)

    def save(self, step: int, state: TrainState, data: dict[str, Any], loss: float | None = None) -> None:
        """Begins a save; returns once the arrays are copied, writing and sending continue in the background.

        Args:
          data: JSON.
          loss: of the evaluation at this step, lower is better; None: it was not evaluated.

        Raises:
          UserError: this save or the previous one could not be written or sent; finished checkpoints are untouched.
        """
        self.wait()
        folder = self._local / str(step)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            (folder / STATE).mkdir(parents=True)
            writing = self._handler.async_save(epath.Path(folder / STATE), args=ocp.args.PyTreeSave(state._asdict()))
            # In a thread of its own: in a notebook, this one already runs an event loop.
            written: Any = self._worker.submit(asyncio.run, writing).result()
            if jax.process_index() == 0:
                (folder / DATA).write_text(json.dumps({"data": data, "digest": digest(step, data)}), encoding="utf-8")
        except Exception as error:
            raise self._explained(error, step) from error
        self._pending = self._worker.submit(self._publish, step, folder, written or [], loss)

    def _publish(self, step: int, local: pathlib.Path, written: list[Any], loss: float | None) -> None:
        try:
            for part in written:
                part.result()
            place, index, count = self.folder / str(step), jax.process_index(), jax.process_count()
            files = _send(local, place)
            if index:
                (place / f"part-{index}").write_bytes(json.dumps({"token": self._token, "files": files}).encode())
                self._until(place / MANIFEST)
            else:
                parts = [place / f"part-{other}" for other in range(1, count)]
                for part in parts:
                    files += self._until(part)["files"]
                self._write_manifest(step, files, loss)
                for part in parts:
                    part.unlink(missing_ok=True)
            self._losses[step] = loss
            for old in self._superfluous():
                del self._losses[old]
                if index == 0:
                    (self.folder / str(old) / MANIFEST).unlink(missing_ok=True)
                    (self.folder / str(old)).rmtree(missing_ok=True)
        except Exception as error:
            raise self._explained(error, step) from error
        finally:
            shutil.rmtree(local, ignore_errors=True)

    def _write_manifest(self, step: int, files: list[Any], loss: float | None) -> None:
        manifest = {"step": step, "token": self._token, "loss": loss, "files": sorted(files)}
        (self.folder / str(step) / MANIFEST).write_bytes(json.dumps(manifest).encode())

    def _until(self, file: pathlib.PurePath) -> dict[str, Any]:
        """Reads an object that another process of this start writes, once it exists."""
        end, pause = time.monotonic() + _PATIENCE_S, 0.05
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):
                found = json.loads(cast(BucketPath, file).read_bytes())
                if found["token"] == self._token:
                    return found
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        raise UserError(f"another process has not written {file} within {_PATIENCE_S:g} s: look at its log")

    def _superfluous(self) -> list[int]:
        """Steps that are neither among the newest nor among the best."""
        scored = sorted((loss, step) for step, loss in self._losses.items() if loss is not None)
        kept = {*self.steps()[-self._config.keep_last :], *(step for _, step in scored[: self._config.keep_best])}
        return [step for step in self.steps() if step not in kept]

    def judged(self, step: int, loss: float) -> None:
        """Records the loss of a checkpoint that was saved before it was evaluated; every process calls it."""
        if not self._config.keep_best or step not in self._losses:
            return
        self.wait()
        self._losses[step] = loss
        if jax.process_index() == 0:
            self._write_manifest(step, self._manifest(step)["files"], loss)
        multihost.barrier("checkpoint judged")

    def wait(self) -> None:
        """Blocks until every save has ended; raises like `save`."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def restore(self, step: int, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State with the shapes, dtypes and shardings of `target`, and the data position.

        Raises:
          UserError: unreadable checkpoint, or one of another architecture.
        """
        where = self.folder / str(step)
        folder = self._local / f"restored-{step}"
        _link(stage_down(cast(pathlib.Path, where)), folder, self._manifest(step)["files"], where)
        try:
            # Each process assembles the files of all.
            self._handler.finalize(epath.Path(folder / STATE))
            restored = ocp.StandardCheckpointHandler(multiprocessing_options=_ALONE).restore(
                epath.Path(folder / STATE), args=ocp.args.StandardRestore(target._asdict())
            )
            state = TrainState(**restored)
        except Exception as error:
            raise UserError(
                f"checkpoint {where} cannot be restored into this model ({first_line(error)}): use the config it was "
                "written with or another workdir, or, if it is damaged, remove that folder, and the run resumes from "
                "the previous one"
            ) from error
        check_shapes(state, target, where)
        noted = json.loads((folder / DATA).read_text(encoding="utf-8"))
        if noted["digest"] != digest(step, noted["data"]):
            raise UserError(
                f"checkpoint {where}: its data position is not the one that was written: remove that folder, and the "
                "run resumes from the previous one"
            )
        shutil.rmtree(folder, ignore_errors=True)
        return state, noted["data"]

    def preempted(self, step: int) -> bool:
        """True when the cluster announced that this job ends (agreed by all hosts)."""
        return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)

    def close(self) -> None:
        with contextlib.suppress(UserError):  # `wait` has reported it, or another error is being raised
            self.wait()
        self._worker.shutdown()
        self._handler.close()
        shutil.rmtree(self._local, ignore_errors=True)

    def _explained(self, error: Exception, step: int) -> UserError:
        reason = str(error) if isinstance(error, UserError) else first_line(error)
        return UserError(
            f"checkpoint of step {step} is incomplete in {self.folder}; the last complete one, from which the same "
            f"command resumes, is of step {self.latest()}: {reason}"
        )


def _send(local: pathlib.Path, place: BucketPath) -> list[list[Any]]:
    """Uploads a process's files (those that describe all, from process 0); returns names, sizes and hashes."""
    files = sorted(file for file in local.rglob("*") if file.is_file())
    if jax.process_index():
        files = [file for file in files if file.parent != local / STATE]

    def send(file: pathlib.Path) -> list[Any]:
        name = file.relative_to(local).as_posix()
        upload_file(file, place / name)
        return [name, file.stat().st_size, _hash(file)]

    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(send, files))


def _link(staged: pathlib.Path, folder: pathlib.Path, files: list[Any], where: BucketPath) -> None:
    """Makes a folder of staged files, to which more may be added, without copying them.

    Raises:
      UserError: one is missing, or not what was sent.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, size, wanted in files:
        file, place = staged / name, folder / name
        if not file.is_file() or file.stat().st_size != size or _hash(file) != wanted:
            raise UserError(
                f"{where / name} is missing or not the file that was written: remove {where}, and the run resumes from "
                "the previous checkpoint"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, place)


def _hash(file: pathlib.Path) -> str:
    """SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
