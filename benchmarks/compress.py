"""A model pruned to 75% of its width and distilled, for `device_check.py`: speed, memory, and bits per byte of text."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.data.read import records
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.interop import model_folder
from kanana_jax.losses.distillation import DistillationConfig
from kanana_jax.models import counts, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.stages import distill
from kanana_jax.stages.text import frozen_runtime
from kanana_jax.surgery import cuts, importance, prune
from kanana_jax.training.heldout import make_evaluation
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.schedule import ScheduleConfig
from kanana_jax.training.step import init_state, make_train_step

CHUNK = 1024
HELD_OUT = 8  # every so manieth document


def random_rows(vocab: int, count: int, seq_len: int) -> packing.Rows[np.ndarray]:
    """Rows of random tokens, two documents each."""
    tokens = np.random.default_rng(0).integers(0, vocab, (count, seq_len + 1)).astype(np.int32)
    return packing.Rows(
        inputs=tokens[:, :-1],
        targets=tokens[:, 1:],
        segment_ids=np.repeat([[1, 2]], seq_len // 2, axis=1).repeat(count, 0).astype(np.int32),
        positions=np.tile(np.arange(seq_len, dtype=np.int32), (count, 1)),
        weights=np.ones((count, seq_len), np.float32),
        source=np.zeros(count, np.int32),
    )


def text_rows(folder: str, text: str, seq_len: int) -> tuple[packing.Rows[np.ndarray], HeldoutRows]:
    """Documents as rows to train on, and those held out."""
    encoder = TextEncoder(load_tokenizer(folder))
    found = (d for origin in records.find(text) for d in records.documents_of(origin, source="text"))
    documents = [document for document in found if isinstance(document, dict)]
    kept = [d for i, d in enumerate(documents) if i % HELD_OUT]
    out = documents[::HELD_OUT]
    size = sum(len(document["text"].encode()) for document in out)
    held = HeldoutRows("text", "text", packing.pack(map(encoder, out), seq_len), size, len(out))
    return packing.pack(map(encoder, kept), seq_len), held


def compress(a: Architecture, folder: str, text: str, *, seconds: float, tiny: bool) -> Iterator[dict[str, Any]]:
    """Figures as they are there.

    Args:
      a: the shape of a newly initialised model, where no `folder` is given.
      text: documents (a file or a folder) for a real model.
      seconds: of distillation, compiling not counted.
    """
    accelerator = jax.devices()[0].platform != "cpu"
    dtype = "bfloat16" if accelerator else "float32"
    runtime = Runtime(compute_dtype=dtype, remat="context" if accelerator else "none")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    B, T = (2, 16) if tiny else (16, 1024)
    found = model_folder.find(folder) if folder else None
    a = found.architecture if found else a
    held = None
    if found:
        params = model_folder.load_params(found, runtime, mesh)
        rows, held = text_rows(str(found.path), text, T)
    else:
        params = jax.jit(lambda key: transformer.init_params(a, runtime, key))(jax.random.key(0))
        rows = random_rows(a.vocab_size, 8 * B, T)
    order = np.random.default_rng(0).permutation(len(rows.source))

    def batch(i: int) -> packing.Rows[jax.Array]:
        chosen = np.take(order, range(i * B, (i + 1) * B), mode="wrap")
        return jax.tree.map(lambda x: jnp.asarray(x[chosen]), rows)

    def bits(model: Model, params) -> dict[str, float]:
        if held is None:
            return {}
        evaluate = make_evaluation(model, [held], mesh, batch_size=B, chunk=CHUNK)
        assert evaluate is not None
        return {"bits_per_byte": evaluate(params)["bits_per_byte"]["source/text"]}

    parent = Model.on(jax.devices()[0].platform, a, runtime, T)
    yield {"model": "parent", "parameters": counts.parameters(a), **bits(parent, params)}
    batches, began = 2 if tiny else 32, time.perf_counter()
    scores = importance.score(importance.ImportanceConfig(), parent, params, map(batch, range(batches)))
    took = time.perf_counter() - began
    narrower = a.embed_dim * 3 // 4
    chosen = prune.cut_list(a, prune.PruneConfig(embed_dim=narrower, mlp_dim=a.mlp_dim * 3 // 4), scores)
    student = jax.block_until_ready(cuts.apply(chosen, params, mesh))
    child = Model.on(jax.devices()[0].platform, chosen.after, runtime, T)
    yield {
        "model": "pruned",
        "parameters": counts.parameters(chosen.after),
        "scoring_tokens_per_s": batches * B * T / took,
        "scoring": "compiling counted",
        **_in_use(),
        **bits(child, student),
    }
    teacher = Model(a, frozen_runtime(runtime, dtype), child.implementation)
    loss = distill.make_loss(child, teacher, config=DistillationConfig(), chunk=CHUNK)
    optimizer = make_optimizer(
        OptimizerConfig(3e-4, ScheduleConfig("constant", warmup_steps=50)), 1000, child.logical_axes()
    )
    state = init_state(student, optimizer, 0)
    frozen = jax.tree.map(lambda x: x.astype(dtype), params)
    step = jax.jit(make_train_step(loss, optimizer), donate_argnums=0).lower(state, batch(0), frozen).compile()
    first, began, done = None, time.perf_counter(), 0
    while done < (3 if tiny else 20) or (time.perf_counter() - began < seconds and not tiny):
        state, metrics = step(state, batch(done), frozen)
        first = float(metrics["loss"]) if first is None else first
        done += 1
        if done % 10 == 0:  # no step is begun long after the time is over
            jax.block_until_ready(metrics)
    last = float(metrics["loss"])
    took = time.perf_counter() - began
    memory = step.memory_analysis()
    yield {
        "model": "distilled",
        "tokens_per_s": done * B * T / took,
        "steps": done,
        "divergence": [round(first or 0.0, 4), round(last, 4)],
        "step_gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
        **_in_use(),
        **bits(child, state.params),
    }


def _in_use() -> dict[str, float]:
    """The most that this process has held, where the device counts it."""
    found = jax.local_devices()[0].memory_stats() or {}
    return {"peak_gib": found["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in found else {}
