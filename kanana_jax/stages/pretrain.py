"""Pre-training: next-token cross-entropy and z-loss on packed documents (Kanana, §2.2)."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import Params, bind
from kanana_jax.parallel.sharding import local_rows, put_batch
from kanana_jax.training.step import Batch, Loss, LossOutput


def make_loss(architecture: Architecture, runtime: Runtime, implementation: str, *, z_loss: float, chunk: int) -> Loss:
    """Sum of cross-entropy and z-loss over the tokens that carry loss."""

    def loss(params: Params, batch: Batch, rng: jax.Array, frozen: None) -> LossOutput:
        del rng, frozen  # nothing is drawn, no other model is needed
        model = bind(architecture, runtime, params)
        hidden_BTD = model(
            batch["inputs"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            implementation=implementation,
        )
        output = cross_entropy(
            hidden_BTD, model.unembedding_matrix(), batch["targets"], batch["weights"], z_loss=z_loss, chunk=chunk
        )
        return LossOutput(output.loss, batch["weights"].sum(), {"nll": output.nll, "z_loss": output.z_loss})

    return loss


def make_evaluation(
    architecture: Architecture,
    runtime: Runtime,
    implementation: str,
    heldout: Sequence[HeldoutRows],
    mesh: Mesh,
    *,
    batch_size: int,
    chunk: int,
) -> Callable[[Params], dict[str, Any]] | None:
    """Held-out bits per byte, by source and by language.

    Bits per byte = Σ −log₂ p(token) / bytes of UTF-8 text; it does not depend on the tokenizer. The
    end of each document is predicted too and counts against the model.

    Returns:
      parameters → `{"bits_per_byte": {"lang/ko": x, "source/web": y}, "loss": {"source/web": nats}}`,
      or None without held-out documents.
    """
    if not heldout:
        return None
    names = list(range(len(heldout)))
    rows = {
        key: np.concatenate([getattr(h.rows, key) for h in heldout])
        for key in ("inputs", "targets", "segment_ids", "positions", "weights")
    }
    rows["source"] = np.concatenate([np.full(len(h.rows.inputs), i, np.int32) for i, h in enumerate(heldout)])
    total = len(rows["source"])
    padded = -(-total // batch_size) * batch_size
    rows = {k: np.concatenate([v, np.zeros((padded - total, *v.shape[1:]), v.dtype)]) for k, v in rows.items()}
    mine = local_rows(mesh, batch_size)

    @jax.jit
    def sums(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = bind(architecture, runtime, params)
        hidden_BTD = model(
            batch["inputs"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            implementation=implementation,
        )
        output = cross_entropy(hidden_BTD, model.unembedding_matrix(), batch["targets"], batch["weights"], chunk=chunk)
        by_source = functools.partial(jax.ops.segment_sum, segment_ids=batch["source"], num_segments=len(names))
        return by_source(output.token_nll.sum(axis=1)), by_source(batch["weights"].sum(axis=1))

    def evaluate(params: Params) -> dict[str, Any]:
        nll, tokens = np.zeros(len(names)), np.zeros(len(names))
        for start in range(0, padded, batch_size):
            local = {key: value[start + mine] for key, value in rows.items()}
            parts = jax.device_get(sums(params, put_batch(mesh, mine, batch_size, local)))
            nll, tokens = nll + parts[0], tokens + parts[1]
        bits: dict[str, float] = {}
        for lang in sorted({h.lang for h in heldout}):
            chosen = [i for i, h in enumerate(heldout) if h.lang == lang]
            size = sum(heldout[i].bytes for i in chosen)
            bits[f"lang/{lang}"] = float(nll[chosen].sum() / math.log(2) / size)
        for i, h in enumerate(heldout):
            bits[f"source/{h.name}"] = float(nll[i] / math.log(2) / h.bytes)
        losses = {f"source/{h.name}": float(nll[i] / tokens[i]) for i, h in enumerate(heldout)}
        return {"bits_per_byte": bits, "loss": losses}

    return evaluate


def sizes(a: Architecture) -> dict[str, tuple[str, int]]:
    """What the mesh must divide, for `sharding.check_divisible`."""
    return {
        "model.num_heads": ("heads", a.num_heads),
        "model.num_kv_heads": ("kv_heads", a.num_kv_heads),
        "model.mlp_dim": ("mlp", a.mlp_dim),
        "model.vocab_size": ("vocab", a.vocab_size),
        "model.embed_dim": ("embed", a.embed_dim),
    }
