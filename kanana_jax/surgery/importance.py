"""The importance of each channel, neuron, head and layer, from forward passes over calibration text only.

Minitron's scores (arXiv:2407.14679, §2.2) with Kanana's changes (arXiv:2502.18934, §2.3, Table 15): channels are scored
by the outputs of all norms and summed over layers; neurons by the SwiGLU states that go into `down`; heads by what goes
into `o`, within their KV group. A score is aggregated over the sequence first (mean of magnitudes), then over the
batch (L2 norm).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import UserError
from kanana_jax.files import stage_down, whole_file, write_json
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params

SCORES = "importance.npz"
FIELDS = ("channels", "neurons", "heads", "layers", "residual", "blocks")


@dataclasses.dataclass(frozen=True)
class ImportanceConfig:
    """The measure of importance. The defaults are Kanana's; other values are baselines and other cells of its Table 15.

    Attributes:
      method: `activation`; `wanda`: |weight| · norm of its input, summed over a part's consumers (arXiv:2306.11695);
        `magnitude`: norms of the weights; `random`: ranks drawn from `seed`.
      sequence, batch: aggregation of magnitudes over the tokens of a row, and over rows.
      neurons: `intermediate`: silu(gate) · up; `gate_up`: mean of the magnitudes of gate and up.
      layers: `cosine`: how far a layer turns the stream; `perplexity`: the rise of the mean next-token loss
        without it (arXiv:2402.02834, §3.1), a forward pass for every layer. Blocks of layers are scored alike.
      layer_sum: whether channel scores are summed over the norms of all layers; otherwise only the final norm's count.
      samples: rows of calibration text (Minitron: 1,024).
      batch_size: rows per forward pass.
      seed: seed for `random`.
    """

    method: Literal["activation", "wanda", "magnitude", "random"] = "activation"
    sequence: Literal["mean", "l2"] = "mean"
    batch: Literal["l2", "mean"] = "l2"
    neurons: Literal["intermediate", "gate_up"] = "intermediate"
    layers: Literal["cosine", "perplexity"] = "cosine"
    layer_sum: bool = True
    samples: int = 1024
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self):
        if min(self.samples, self.batch_size) < 1:
            raise ValueError("samples and batch_size must be at least 1")


@dataclasses.dataclass(frozen=True)
class Importance:
    """Scores of one model, float32; higher means more important.

    Attributes:
      channels: `[D]`.
      neurons: `[L, F]`.
      heads: `[L, H]`.
      layers: `[L]`, 1 − cos(input, output), averaged over tokens (block influence, arXiv:2403.03853, eq. 1); or the
        rise of the loss without the layer, nats per token.
      residual: `[2·L + 1, D]`, mean squares of each channel before each norm, relative to the norm's.
      blocks: `[L, L]`: row n − 1, place i is the score of layers i … i + n − 1 together: how far they turn the stream
        (arXiv:2403.17887, §3.1, whose distance is arccos / π of the same cosine), or the rise of the loss without all
        of them. Layers that undo each other score low together, and small turns add up. Infinite where a block
        would contain the last layer, or was not requested.
    """

    channels: np.ndarray
    neurons: np.ndarray
    heads: np.ndarray
    layers: np.ndarray
    residual: np.ndarray
    blocks: np.ndarray

    def check(self, a: Architecture) -> None:
        """Raises UserError if these are not the scores of a model of this shape, or not finite."""
        wanted = {
            "channels": (a.embed_dim,),
            "neurons": (a.num_layers, a.mlp_dim),
            "heads": (a.num_layers, a.num_heads),
            "layers": (a.num_layers,),
            "residual": (2 * a.num_layers + 1, a.embed_dim),
            "blocks": (a.num_layers, a.num_layers),
        }
        for name, shape in wanted.items():
            found = getattr(self, name)
            if found.shape != shape:
                raise UserError(f"importance '{name}' has shape {found.shape}, the model needs {shape}: score it again")
            if np.isnan(found).any() or (name != "blocks" and not np.isfinite(found).all()):
                raise UserError(f"importance '{name}' is not finite: the calibration data or the model are broken")

    def save(self, folder: pathlib.Path, about: dict[str, Any]) -> None:
        """Writes `importance.npz` and `importance.json` (the settings of the measurement)."""
        with whole_file(folder / SCORES) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in FIELDS})
        write_json(folder / "importance.json", about)

    @staticmethod
    def load(folder: pathlib.Path) -> "Importance":
        """Raises UserError if they are missing or unreadable."""
        try:
            with np.load(stage_down(folder / SCORES), allow_pickle=False) as file:
                return Importance(*(file[name] for name in FIELDS))
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{folder} holds no importance scores ({error}): prune from the model instead") from error


def forward_passes(config: ImportanceConfig, num_layers: int, lengths: Sequence[int] = ()) -> int:
    """FLOPs per row of calibration text; 0 if scores depend only on weights. `lengths` as of `score`."""
    passes = 1 if config.method in ("activation", "wanda") else 0
    return passes + (len(_blocks(num_layers, lengths)) + 1 if config.layers == "perplexity" else 0)


def _blocks(num_layers: int, lengths: Sequence[int]) -> np.ndarray:
    """First layers and ends of the parts scored: each layer, then the blocks of these lengths, `[P, 2]`."""
    singles = [(i, i + 1) for i in range(num_layers)]
    return np.array([*singles, *((i, i + n) for n in lengths if n > 1 for i in range(num_layers - n))])


def score(
    config: ImportanceConfig,
    model: Model,
    params: Params,
    batches: Iterable[Rows[jax.Array]],
    lengths: Sequence[int] = (),
) -> Importance:
    """Scores a model; parameters and batches may be sharded, only the scores are gathered.

    Args:
      batches: packed rows; tokens of weight 0 do not count.
      lengths: lengths of the blocks of layers to score. With `cosine`, any block keeps the states between all layers of
        a batch, as training with checkpointed layers does; with `perplexity`, each block costs a pass.

    Raises:
      UserError: no calibration text, or scores that are not finite.
    """
    a = model.architecture
    blocks = _blocks(a.num_layers, lengths)
    by_loss = config.layers == "perplexity"
    between = not by_loss and len(blocks) > a.num_layers
    observe = jax.jit(functools.partial(_sums, config, model, between))
    without = jax.jit(functools.partial(_losses_without, model, blocks))
    total = None
    for batch in batches:
        found = observe(params, batch)
        if by_loss:
            found["without"] = without(params, batch)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    if total is None:
        raise UserError("there is no calibration text: lower importance.batch_size or give longer documents")
    total = jax.device_get(total)
    finish = np.sqrt if config.batch == "l2" else lambda x: x / total["rows"]
    norms = np.concatenate([finish(total["norms"]).reshape(-1, a.embed_dim), finish(total["final"])[None]])
    tokens = total["tokens"]
    neurons, heads = finish(total["neurons"]), finish(total["heads"])
    residual = np.concatenate([total["squares"].reshape(-1, a.embed_dim), total["final_squares"][None]]) / tokens
    channels = norms.sum(axis=0) if config.layer_sum else norms[-1]
    if config.method != "activation":
        channels, neurons, heads = _from_weights(config, a, params, norms, neurons, heads)
    starts, ends = blocks.T
    if by_loss:
        scores = (total["without"][:-1] - total["without"][-1]) / tokens
    else:
        turned = total["between"][starts[a.num_layers :], ends[a.num_layers :]] if between else []
        scores = 1.0 - np.concatenate([total["cosine"], turned]) / tokens
    together = np.full((a.num_layers, a.num_layers), np.inf)
    together[ends - starts - 1, starts] = scores
    together[:, -1] = np.inf  # the last layer, alone
    layers = scores[: a.num_layers]
    found = Importance(*(np.asarray(x, np.float32) for x in (channels, neurons, heads, layers, residual, together)))
    found.check(a)
    return found


def _sums(
    config: ImportanceConfig, model: Model, between: bool, params: Params, batch: Rows[jax.Array]
) -> dict[str, jax.Array]:
    """Sums over one batch, each layer's reduced as soon as it is computed.

    Args:
      between: also Σ cos between the inputs of any two layers, `[L, L]`.
    """
    weights_BT = batch.weights.astype(jnp.float32)
    rows_B = (weights_BT.sum(axis=1) > 0).astype(jnp.float32)
    count_B = jnp.maximum(weights_BT.sum(axis=1), 1.0)

    def aggregate(x_BTN):
        """Magnitudes `[B, T, N]` → their sum over rows `[N]` (of squares, for L2)."""
        if config.sequence == "l2":
            of_row = jnp.sqrt(jnp.einsum("btn,bt->bn", jnp.square(x_BTN), weights_BT))
        else:
            of_row = jnp.einsum("btn,bt->bn", x_BTN, weights_BT) / count_B[:, None]
        of_row = jnp.square(of_row) if config.batch == "l2" else of_row
        return (of_row * rows_B[:, None]).sum(axis=0)

    def magnitude(x):
        return jnp.abs(x.astype(jnp.float32))

    offset = 1.0 if model.architecture.norm_unit_offset else 0.0

    def gain_of(scale):
        gain = offset + scale.astype(jnp.float32)
        return jnp.where(gain == 0, 1.0, gain)

    def squares(normed_BTD, gain):
        """Squares of the normalised stream, summed over tokens; the gain is divided out."""
        return jnp.einsum("btd,bt->d", jnp.square(normed_BTD.astype(jnp.float32) / gain), weights_BT)

    def observe(taps):
        heads_BTH = jnp.sqrt(jnp.square(taps["heads"].astype(jnp.float32)).sum(axis=-1))
        if config.neurons == "intermediate":
            neurons_BTF = magnitude(taps["hidden"])
        else:
            neurons_BTF = 0.5 * (magnitude(taps["gate"]) + magnitude(taps["up"]))
        before, after = taps["input"].astype(jnp.float32), taps["output"].astype(jnp.float32)
        norm = jnp.sqrt(jnp.square(before).sum(axis=-1) * jnp.square(after).sum(axis=-1))
        cosine_BT = (before * after).sum(axis=-1) / jnp.maximum(norm, 1e-12)
        seen = {
            "norms": jnp.stack([aggregate(magnitude(taps[name])) for name in ("attention_norm", "mlp_norm")]),
            "neurons": aggregate(neurons_BTF),
            "heads": aggregate(heads_BTH),
            "cosine": (cosine_BT * weights_BT).sum(),
            "raw": jnp.stack([squares(taps[name], jnp.ones(())) for name in ("attention_norm", "mlp_norm")]),
        }
        if between:
            length = jnp.sqrt(jnp.square(before).sum(axis=-1, keepdims=True))
            seen["turned"] = (before / jnp.maximum(length, 1e-12)).astype(taps["input"].dtype)
        return seen

    (hidden_BTD, seen), _ = model(params, batch, observe=observe)
    raw_L2D, gains_L2D = seen.pop("raw"), jnp.ones(())
    if model.architecture.norm_placement != "post":
        gains_L2D = jnp.stack([gain_of(params["blocks"][name]["scale"]) for name in ("attention_norm", "mlp_norm")], 1)
    if between:
        turned_LBTD = seen.pop("turned")
        weighted_LBTD = turned_LBTD * weights_BT[..., None].astype(turned_LBTD.dtype)
        seen["between"] = jnp.einsum("ibtd,jbtd->ij", weighted_LBTD, turned_LBTD, preferred_element_type=jnp.float32)
    return {
        **seen,
        "squares": raw_L2D / jnp.square(gains_L2D),
        "final": aggregate(magnitude(hidden_BTD)),
        "final_squares": squares(hidden_BTD, gain_of(params["final_norm"]["scale"])),
        "tokens": weights_BT.sum(),
        "rows": rows_B.sum(),
    }


def _losses_without(model: Model, gone: np.ndarray, params: Params, batch: Rows[jax.Array]) -> jax.Array:
    """Summed next-token losses of a batch without each block of `gone` `[P, 2]`, and with all layers, `[P + 1]`."""
    places, axes = jnp.arange(model.architecture.num_layers), model.logical_axes()["blocks"]

    def loss(block):
        # A layer whose outputs are zero adds nothing to the stream, as if it were absent.
        stays = (places < block[0]) | (places >= block[1])

        def silenced(axes, x):
            writes = axes[-1] == "embed"
            return x * stays.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype) if writes else x

        blocks = jax.tree.map(silenced, axes, params["blocks"], is_leaf=lambda x: isinstance(x, tuple))
        hidden_BTD, unembedding_VD = model({**params, "blocks": blocks}, batch)
        cap = model.architecture.logits_softcap
        return cross_entropy(hidden_BTD, unembedding_VD, batch.targets, batch.weights, soft_cap=cap).nll

    return jax.lax.map(loss, jnp.asarray(np.concatenate([gone, [(0, 0)]])))


def _from_weights(config: ImportanceConfig, a: Architecture, params: Params, norms, neurons, heads):
    """Channels `[D]`, neurons `[L, F]` and heads `[L, H]` by weights, or by weights and their inputs."""
    if config.method == "random":
        draw = np.random.default_rng(config.seed)
        return (
            draw.random(a.embed_dim),
            draw.random((a.num_layers, a.mlp_dim)),
            draw.random((a.num_layers, a.num_heads)),
        )

    @jax.jit
    def sizes(params):
        blocks = jax.tree.map(lambda x: x.astype(jnp.float32), params["blocks"])
        attention, mlp = blocks["attention"], blocks["mlp"]
        if config.method == "magnitude":
            reads = [
                jnp.sqrt(jnp.square(w).sum(axis=tuple(range(2, w.ndim))))
                for w in (attention["q"], attention["k"], attention["v"], mlp["gate"], mlp["up"])
            ]
            writes = [jnp.sqrt(jnp.square(attention["o"]).sum((1, 2))), jnp.sqrt(jnp.square(mlp["down"]).sum(1))]
            channels = sum(x.sum(axis=0) for x in (*reads, *writes))
            parts = jnp.square(mlp["gate"]).sum(1) + jnp.square(mlp["up"]).sum(1) + jnp.square(mlp["down"]).sum(2)
            whole = jnp.square(attention["q"]).sum((1, 3)) + jnp.square(attention["o"]).sum((2, 3))
            return channels, jnp.sqrt(parts), jnp.sqrt(whole)
        outputs_LD = [
            jnp.abs(w).sum(axis=tuple(range(2, w.ndim))) for w in (attention["q"], attention["k"], attention["v"])
        ]
        mlp_LD = [jnp.abs(w).sum(axis=2) for w in (mlp["gate"], mlp["up"])]
        norms_L2D = jnp.asarray(norms[:-1]).reshape(a.num_layers, 2, a.embed_dim)
        channels = (norms_L2D[:, 0] * sum(outputs_LD) + norms_L2D[:, 1] * sum(mlp_LD)).sum(axis=0)
        into_down = jnp.abs(mlp["down"]).sum(axis=2)
        into_o = jnp.abs(attention["o"]).sum(axis=(2, 3)) / a.head_dim
        return channels, jnp.asarray(neurons) * into_down, jnp.asarray(heads) * into_o

    return jax.device_get(sizes(params))
