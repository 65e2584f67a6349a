"""A batch job: a frozen teacher runs over the rows of a later distillation, and its logits are kept on disk.

The distillation then needs no teacher (`data/stream/teacher_cache.py` has the format, `distill.cache` names this
stage), and any number of students learn from one forward pass.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from kanana_jax.data.stream import teacher_cache
from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.stream.pipeline import BatchStream
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import load_json, write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import noted
from kanana_jax.losses.top_tokens import TopTokens, top_tokens
from kanana_jax.models import counts
from kanana_jax.models.architecture import DType
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel import chips, multihost, sharding
from kanana_jax.stages import cache_chapter
from kanana_jax.stages.kind import Context, Kind, ReadingConfig, check_text
from kanana_jax.stages.text import frozen_runtime
from kanana_jax.training.metrics import Terminal
from kanana_jax.training.preemption import Preempted, termination
from kanana_jax.training.task import BatchConfig

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheTeacherConfig(BatchConfig):
    """The section `cache_teacher` of a stage; the stage's `start` is the teacher.

    Attributes:
      k: number of most probable tokens kept for each target, 1 … vocabulary size.
      tokens: at least the `train.tokens` of the distillation; `batch_tokens` and `seq_len` must equal its values.
      dtype: dtype in which the teacher is stored and runs.
      log_probs: dtype on disk.
      chunk: tokens whose logits a device computes at once.
      shard_bytes: approximate size of a shard; a stopped job loses at most the shard under way.
      log_every: steps between log lines.
    """

    k: int
    dtype: DType = "bfloat16"
    log_probs: Literal["float16", "float32"] = "float16"
    chunk: int = 1024
    shard_bytes: int = 64 << 20
    log_every: int = 10

    def __post_init__(self):
        super().__post_init__()
        if min(self.k, self.tokens, self.chunk, self.shard_bytes, self.log_every) < 1:
            raise ValueError("k, tokens, chunk, shard_bytes and log_every must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheTeacherStage(ReadingConfig):
    """A stage of this kind; it starts from the teacher."""

    cache_teacher: CacheTeacherConfig


def run(name: str, config: CacheTeacherStage, context: Context) -> None:
    """Writes the cache, resuming where it was stopped; every process writes its own rows.

    Raises:
      Preempted: asked to stop; complete shards stay.
      ConfigError: k beyond the vocabulary, or a mesh that does not divide.
      UserError: the cache was started with another teacher, or the disk is full.
    """
    own, teacher, shapes = config.cache_teacher, context.find(config.start), context.shapes
    a, mesh, folder, position = teacher.architecture, shapes.mesh, context.workdir / name, context.position(config)
    check_text(name, context, a, teacher, "cache_teacher.seq_len", own.seq_len, "teacher")
    if own.k > context.tokenizer.vocab_size:
        known = context.tokenizer.vocab_size
        raise ConfigError(f"config '{name}.cache_teacher.k' is {own.k}: the tokenizer has {known} tokens")
    rows = {"rows": ("batch", own.batch_size), "seq_len": ("sequence", own.seq_len)}
    sharding.check_divisible(mesh, {**counts.sizes(a), **rows})
    header = {
        "of": noted(teacher.path, context.workdir),
        "teacher": model_folder.fingerprint(teacher),
        "vocab_size": a.vocab_size,
        "k": own.k,
        "seq_len": own.seq_len,
        "batch_size": own.batch_size,
        "steps": own.steps,
        "rows": own.steps * own.batch_size,
        "ids_dtype": teacher_cache.ids_dtype(a.vocab_size),
        "log_probs_dtype": own.log_probs,
        "tokenizer": TextEncoder(context.tokenizer).fingerprint,
        "data": context.about_rows(name, config),
    }
    progress = _progress(folder, header)
    model = shapes.model(a, own.seq_len, frozen_runtime(shapes.runtime, own.dtype))
    tokens = context.tokenizer.vocab_size
    job = _Job(name, own, model, lambda: context.load(teacher, model), mesh, folder, header, tokens)
    encoder = TextEncoder(context.tokenizer)
    stream = context.stream(name, config, encoder, job.rows, own.batch_size, own.seq_len, position)
    with jax.set_mesh(mesh), contextlib.closing(stream) as batches, termination() as terminated:
        progress = job.loop(batches, progress, terminated)
    if jax.process_index() == 0:
        flops = counts.forward_flops_per_token(a, own.seq_len) * progress["tokens"]
        size = sum(shard["bytes"] for shard in progress["shards"])
        made = {
            "bytes_per_token": size / max(progress["tokens"], 1),
            "mean_tail": progress["tail"] / max(progress["tokens"], 1),
            "flops": {"train": 0.0, "teacher": flops, "calibration": 0.0},
            "tokens": progress["tokens"],
            "shards": progress["shards"],
        }
        write_json(folder / teacher_cache.INDEX, header | made)
        (folder / teacher_cache.PROGRESS).unlink()
    multihost.barrier("cache finished")


def _progress(folder: pathlib.Path, header: Json) -> Json:
    """The progress of the job; leftovers of a stopped start are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / teacher_cache.PROGRESS
    progress: Json = {"header": header, "done": 0, "tokens": 0, "tail": 0.0, "stream": None, "shards": []}
    if file.is_file():
        progress = load_json(file)
        damaged = UserError(f"{file} is damaged: delete {folder} and make the cache again")
        begun = progress.get("header")
        if not isinstance(begun, dict) or not isinstance(begun.get("data", {}), dict):
            raise damaged
        now, before = (_told(x) for x in (header, begun))
        other = [key for key in now if now[key] != before.get(key) and key != "of"]
        if other:
            raise UserError(
                f"{folder} was started with different values of {', '.join(other)}: delete it, or restore those values"
            )
        if not _goes_on(progress):
            raise damaged
    multihost.barrier("progress read")
    if jax.process_index() == 0:
        known = {shard["file"] for shard in progress["shards"]}
        for path in [*folder.glob("*.array_record"), *folder.glob("*.partial")]:
            if path.name not in known:
                path.unlink()
    multihost.barrier("leftovers removed")
    return progress


def _goes_on(value: Json) -> bool:
    """Returns whether a progress file holds everything needed to resume."""
    done, shards = value.get("done"), value.get("shards")
    if not isinstance(value.get("stream"), dict | None) or type(done) is not int or done < 0:
        return False
    if not isinstance(shards, list):
        return False
    if any(not isinstance(value.get(key), int | float) for key in ("tokens", "tail")):
        return False
    return all(isinstance(s, dict) and isinstance(s.get("file"), str) and type(s.get("bytes")) is int for s in shards)


def _told(header: Json) -> Json:
    """A header with the values that determine its rows merged into its own keys."""
    return {**{k: v for k, v in header.items() if k != "data"}, **header.get("data", {})}


class _Job:
    """The moving parts of one call of `run`."""

    def __init__(
        self,
        name: str,
        config: CacheTeacherConfig,
        model: Model,
        load: Callable[[], Params],
        mesh: Mesh,
        folder: pathlib.Path,
        header: Json,
        tokens: int,
    ):
        self.tokens = tokens
        self.name, self.config, self.mesh, self.folder, self.header = name, config, mesh, folder, header
        self.rows = sharding.local_rows(mesh, config.batch_size)
        self.owners = sharding.owned_rows(mesh, config.batch_size)
        self.mine = self.owners.get(jax.process_index(), np.zeros(0, int))
        self.model, self.load = model, load
        self.forward = self._forward()
        entry = np.dtype(header["ids_dtype"]).itemsize + np.dtype(config.log_probs).itemsize
        # Over all processes together, so that shard boundaries do not depend on their number.
        self.steps_per_shard = max(1, config.shard_bytes // (config.batch_tokens * config.k * entry))
        rate, self.peak_source = chips.peak_flops(jax.local_devices()[0])
        self.peak = rate * mesh.size

    def _forward(self) -> jax.stages.Wrapped:
        config = self.config

        def forward(params: Params, batch: Rows[jax.Array]) -> tuple[TopTokens, jax.Array, jax.Array]:
            hidden_BTD, unembedding_VD = self.model(params, batch)
            top = top_tokens(
                hidden_BTD,
                unembedding_VD,
                config.k,
                tokens=self.tokens,
                ids_dtype=self.header["ids_dtype"],
                log_probs_dtype=config.log_probs,
                chunk=config.chunk,
                soft_cap=self.model.architecture.logits_softcap,
            )
            tail_BT = jnp.clip(1 - jnp.exp(top.log_probs.astype(jnp.float32)).sum(axis=-1), 0.0, 1.0)
            return top, (tail_BT * batch.weights).sum(), batch.weights.sum()

        # Whole rows on every device that holds part of one, so that a process can write them.
        whole, one = NamedSharding(self.mesh, sharding.spec("batch", None, None)), sharding.replicated(self.mesh)
        return jax.jit(forward, out_shardings=(whole, one, one))

    def loop(self, batches: BatchStream, progress: Json, terminated: Callable[[], bool]) -> Json:
        config = self.config
        if progress["stream"] is not None:
            batches.set_state(progress["stream"])
        first = progress["done"]
        params: Params = {}
        if first < config.steps:
            params = self.load()
        terminal = Terminal(self.name, config.steps, first) if jax.process_index() == 0 else None
        flops = counts.forward_flops_per_token(self.model.architecture, config.seq_len)
        clock = _Clock(lambda rate: chips.utilisation(rate * flops, self.peak, self.peak_source))
        try:
            while first < config.steps:
                end = min(first + self.steps_per_shard, config.steps)
                progress = self._shard(params, batches, first, end, progress, terminated, terminal, clock)
                first = end
        finally:
            if terminal is not None:
                terminal.close()
        return progress

    def _shard(
        self,
        params: Params,
        batches: BatchStream,
        first: int,
        end: int,
        progress: Json,
        terminated: Callable[[], bool],
        terminal: Terminal | None,
        clock: "_Clock",
    ) -> Json:
        """Writes a shard, then the progress; if stopped in between, the shard is written again with the same bytes."""
        config, number = self.config, first // self.steps_per_shard
        tokens, tail, pending = progress["tokens"], progress["tail"], None
        path = self.folder / teacher_cache.shard_name(number, jax.process_index())
        with teacher_cache.shard_writer(path) if len(self.mine) else contextlib.nullcontext(_no_row) as write:
            for step in range(first, end + 1):
                following = None
                if step < end:
                    local = next(batches)
                    batch = sharding.put_batch(self.mesh, self.rows, config.batch_size, local)
                    following = (step, local, self.forward(params, batch))
                # A step is written once the next is under way, so that the device never waits.
                if pending is not None:
                    lost, carried = self._write(write, *pending)
                    tail, tokens = tail + lost, tokens + carried
                    clock.count(carried, batches.wait_seconds)
                    done = pending[0] + 1
                    if terminal is not None and (done % config.log_every == 0 or done == config.steps):
                        terminal.write(
                            clock.line(done, config.steps) | {"tokens": tokens, "tail_mass": tail / max(tokens, 1)}
                        )
                pending = following
                if terminated():
                    raise Preempted(
                        f"stage '{self.name}' was stopped after caching {first} of {config.steps} steps: run the "
                        "same command again to resume"
                    )
        multihost.barrier("shard written")
        entries = []
        for process, rows in self.owners.items():
            file = teacher_cache.shard_name(number, process)
            size = (self.folder / file).stat().st_size if jax.process_index() == 0 else 0
            entries.append({"file": file, "steps": [first, end], "rows": _ranges(rows), "bytes": size})
        progress = progress | {
            "done": end,
            "tokens": tokens,
            "tail": tail,
            "stream": multihost.merge_states(batches.get_state()),
            "shards": [*progress["shards"], *entries],
        }
        if jax.process_index() == 0:
            write_json(self.folder / teacher_cache.PROGRESS, progress, indent=None)
        return progress

    def _write(
        self,
        write: Callable[[bytes], None],
        step: int,
        local: Rows[np.ndarray],
        found: tuple[TopTokens, jax.Array, jax.Array],
    ) -> tuple[float, int]:
        """Writes this process's rows of a step; returns the tail mass and the tokens of all rows."""
        top, tail, weight = found
        ids, log_probs = (sharding.take_rows(x, self.rows) for x in top)
        for row in self.mine:
            i = int(np.searchsorted(self.rows, row))
            carries = local.weights[i] > 0
            digest = teacher_cache.row_digest(local, i)
            number = step * self.config.batch_size + int(row)
            entry = teacher_cache.Entry(digest, number, ids[i][carries], log_probs[i][carries])
            write(teacher_cache.encode(entry))
        return float(tail), int(weight)


def _no_row(data: bytes) -> None:
    raise AssertionError("a process without rows wrote one")


class _Clock:
    """Throughput since the first step, which compiles.

    Args:
      mfu: tokens per second → MFU.
    """

    def __init__(self, mfu: Callable[[float], float]):
        self.mfu = mfu
        self.began, self.tokens, self.waited, self.steps = time.perf_counter(), 0, 0.0, -1

    def count(self, tokens: int, waited: float) -> None:
        self.steps += 1
        if self.steps == 0:
            self.began = time.perf_counter()
        else:
            self.tokens, self.waited = self.tokens + tokens, self.waited + waited

    def line(self, step: int, steps: int) -> Json:
        seconds = time.perf_counter() - self.began
        if self.steps < 1:
            return {"step": step}
        return {
            "step": step,
            "tokens_per_s": self.tokens / seconds,
            "mfu": self.mfu(self.tokens / seconds),
            "data_wait_share": self.waited / seconds,
            "eta_s": (steps - step) * seconds / self.steps,
        }


def _ranges(rows: np.ndarray) -> list[list[int]]:
    """Ascending rows as `[first, end)` ranges."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [[int(part[0]), int(part[-1]) + 1] for part in parts]


KIND = Kind("cache_teacher", CacheTeacherStage, run, result=teacher_cache.INDEX, chapter=cache_chapter.CHAPTER)
