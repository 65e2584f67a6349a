"""Evaluation on held-out text: bits per byte, by source and by language."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import RULES, local_rows, put_batch
from kanana_jax.training.task import Evaluation


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Held-out text: `max_bytes` per source, evaluated `batch_size` rows at a time."""

    max_bytes: int = 100_000
    batch_size: int = 8


# For each source: the weighted Σ −log p of its targets (nats), and Σ of the weights.
Sums = tuple[np.ndarray, np.ndarray]


def make_evaluation(
    model: Model, heldout: Sequence[HeldoutRows], mesh: Mesh, *, batch_size: int, chunk: int
) -> Callable[[Params], Evaluation] | None:
    """Held-out bits per byte.

    Bits per byte = Σ −log₂ p(token) / bytes of UTF-8 text; it does not depend on the tokenizer. The
    end of each document is predicted too and counts against the model.

    Returns:
      parameters → `{"bits_per_byte": {"lang/ko": x, "source/web": y}, "loss": {"source/web": nats}}`,
      or None without held-out documents.
    """
    if not heldout:
        return None
    sums = make_sums(model, heldout, mesh, batch_size=batch_size, chunk=chunk)

    def evaluate(params: Params) -> Evaluation:
        nll, tokens = sums(params)
        sizes = np.array([h.bytes for h in heldout], np.float64)
        losses = {f"source/{h.name}": float(nll[i] / tokens[i]) for i, h in enumerate(heldout)}
        return {"bits_per_byte": by_name(heldout, nll, sizes, unit=math.log(2)), "loss": losses}

    return evaluate


def by_name(heldout: Sequence[HeldoutRows], sums: np.ndarray, sizes: np.ndarray, unit: float = 1.0) -> dict[str, float]:
    """Σ sums / unit / Σ sizes for each language (`lang/ko`) and each source (`source/web`)."""
    found: dict[str, float] = {}
    for lang in sorted({h.lang for h in heldout}):
        chosen = [i for i, h in enumerate(heldout) if h.lang == lang]
        found[f"lang/{lang}"] = float(sums[chosen].sum() / unit / sizes[chosen].sum())
    return found | {f"source/{h.name}": float(sums[i] / unit / sizes[i]) for i, h in enumerate(heldout)}


def make_sums(
    model: Model, heldout: Sequence[HeldoutRows], mesh: Mesh, *, batch_size: int, chunk: int
) -> Callable[[Params], Sums]:
    """Parameters → the losses of held-out rows, summed by source."""
    count, rows_of = len(heldout), batches(heldout, mesh, batch_size)

    @jax.jit
    def of_batch(params: Params, batch: Rows[jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden_BTD, unembedding_VD = model(params, batch)
        cap = model.architecture.logits_softcap
        output = cross_entropy(hidden_BTD, unembedding_VD, batch.targets, batch.weights, chunk=chunk, soft_cap=cap)
        by_source = functools.partial(jax.ops.segment_sum, segment_ids=batch.source, num_segments=count)
        return by_source(output.token_nll.sum(axis=1)), by_source(batch.weights.sum(axis=1))

    def sums(params: Params) -> Sums:
        nll, tokens = np.zeros(count), np.zeros(count)
        for batch in rows_of():
            parts = jax.device_get(of_batch(params, batch))
            nll, tokens = nll + parts[0], tokens + parts[1]
        return nll, tokens

    return sums


def batches(heldout: Sequence[HeldoutRows], mesh: Mesh, batch_size: int) -> Callable[[], Iterator[Rows[jax.Array]]]:
    """Yields the held-out rows in global batches, the last one padded; `source` is the index in `heldout`."""
    parts = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    batch_size = -(-batch_size // parts) * parts
    rows = Rows(*(np.concatenate(parts) for parts in zip(*(h.rows for h in heldout))))
    sources = [np.full(len(h.rows.inputs), i, np.int32) for i, h in enumerate(heldout)]
    rows = rows._replace(source=np.concatenate(sources))
    total = len(rows.source)
    padded = -(-total // batch_size) * batch_size
    rows = Rows(*(np.concatenate([v, np.zeros((padded - total, *v.shape[1:]), v.dtype)]) for v in rows))
    mine = local_rows(mesh, batch_size)

    def each() -> Iterator[Rows[jax.Array]]:
        for start in range(0, padded, batch_size):
            yield put_batch(mesh, mine, batch_size, Rows(*(value[start + mine] for value in rows)))

    return each
