"""Attention behind one function, with packed documents kept apart.

| implementation | runs on | memory | packed documents |
|---|---|---|---|
| `xla` | everywhere | O(T·S) | mask |
| `cudnn` | NVIDIA GPU, bf16/fp16 | flash; O(T·S) bits of mask for packed documents | mask as bias |
| `splash` | TPU | flash | segment ids in the kernel |

cuDNN's own segment handling is not used: through JAX it has let packed documents attend to each
other without an error, so a packed batch goes to cuDNN with an explicit mask.
"""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding

from kanana_jax.errors import ConfigError
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.sharding import axis_size, platform, spec

_BEST = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn", "cpu": "xla"}
SPLASH_BLOCK = 1024
SPLASH_COMPUTE_BLOCK = 512
# The name of the parts of attention that rematerialisation may keep: its output, and the kernel's log Σ exp.
CONTEXT = "context"
# Measured on two CPU cores at T = 256: forward and backward 65 ms with 1 block, 45 with 2, 39 with 4, 19 with 8.
XLA_BLOCKS = 8
# Logits of a block up to which a CPU takes all groups of heads at once. Beyond, few go at a time, so that they stay in
# its cache, and the backward pass computes them again, which is cheaper than to keep them. Two cores, 8 heads of 32,
# packed documents, forward and backward: 32 rows at T = 256, 93 ms all at once, 83 ms so; 16 at 512, 162 and 111; 8 at
# 1024, 384 and 198. Below, all at once is as fast or faster: 8 rows at T = 256, 17 and 19 ms. A single query always
# goes at once: 20 rows against 1,344 slots, 31 ms per layer and step in groups, whose keys are copied, 10 ms so.
XLA_LOGITS = 1 << 19
# Rows of a group's product (queries × heads of the group) at a time, for the same reason: one CPU core, forward, 4 rows
# at T = 4096, 0.81 s by whole blocks, 0.61 s so.
XLA_ROWS = 256


def choose(
    requested: str, platform: str, *, compute_dtype: str, seq_len: int, head_dim: int, soft_cap: float = 0.0
) -> str:
    """The implementation that will run, or an error that says why a named one cannot.

    Raises:
      ConfigError: a named implementation is not usable here; nothing falls back silently.
    """
    reasons = {
        "xla": None,
        "cudnn": _cudnn_problem(platform, compute_dtype, head_dim, soft_cap),
        "splash": _splash_problem(platform, seq_len),
    }
    if requested != "auto":
        if reasons[requested]:
            raise ConfigError(f"runtime.attention = '{requested}' cannot run here: {reasons[requested]}")
        return requested
    best = _BEST.get(platform, "xla")
    return best if reasons[best] is None else "xla"


def implementation(runtime: Runtime, architecture: Architecture, seq_len: int, platform: str) -> str:
    """The implementation that runs on a platform (`choose`)."""
    return choose(
        runtime.attention,
        platform,
        compute_dtype=runtime.compute_dtype,
        seq_len=seq_len,
        head_dim=architecture.head_dim,
        soft_cap=architecture.attention_softcap,
    )


def _cudnn_problem(platform: str, compute_dtype: str, head_dim: int, soft_cap: float) -> str | None:
    if platform not in ("gpu", "cuda"):
        return f"cuDNN needs an NVIDIA GPU and this is {platform}; use 'xla' or 'auto'"
    if compute_dtype != "bfloat16":
        return f"cuDNN's flash attention computes in bfloat16, not {compute_dtype}; set runtime.compute_dtype"
    if head_dim % 8 or head_dim > 256:
        return f"cuDNN's flash attention needs a head_dim that is a multiple of 8 up to 256, not {head_dim}"
    if soft_cap:
        return f"cuDNN's flash attention has no soft cap on its logits, but the model has one of {soft_cap:g}"
    return None


def _splash_problem(platform: str, seq_len: int) -> str | None:
    if platform != "tpu":
        return f"splash attention is a TPU kernel and this is {platform}; use 'xla' or 'auto'"
    if seq_len % 128:
        return f"splash attention needs a sequence length that is a multiple of 128, not {seq_len}"
    return None


def attend(
    q_BTHh: jax.Array,
    k_BSKh: jax.Array,
    v_BSKh: jax.Array,
    *,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    causal: bool,
    implementation: str,
    q_offset: jax.Array | int = 0,
    scale: float | None = None,
    window: int = 0,
    soft_cap: float = 0.0,
    seen: jax.Array | None = None,
) -> jax.Array:
    """softmax(scale·q·kᵀ + mask)·v (arXiv:1706.03762, eq. 1), grouped queries.

    Args:
      q_BTHh: queries `[B, T, H, h]`.
      k_BSKh: keys `[B, S, K, h]`; query head `i` reads KV head `i // (H/K)`.
      v_BSKh: values `[B, S, K, h]`.
      q_segments: int32 `[B, T]` or None; a query sees the keys of its own segment only.
      kv_segments: int32 `[B, S]` or None.
      causal: a query at index `t` sees keys at indices up to `q_offset + t`.
      implementation: `xla`, `cudnn` or `splash` (from `choose`).
      q_offset: index of the first query among the keys (a KV cache's length).
      scale: factor on q·k; default 1/√h.
      window: keys at least this many indices away are not seen; 0: all are seen.
      soft_cap: c in c·tanh(x/c) of the scaled logits; 0: none.
      seen: bool `[B, T, S]`: which keys a query sees, replacing all masks above; only with `xla`.

    Returns:
      `[B, T, H, h]` in the dtype of `q_BTHh`, named `CONTEXT` for rematerialisation.

    Raises:
      ConfigError: `splash` or `cudnn` for a pass with a cache (offset), which only `xla` supports.
    """
    scale = q_BTHh.shape[-1] ** -0.5 if scale is None else scale
    cached = q_BTHh.shape[1] != k_BSKh.shape[1]
    if implementation != "xla" and cached:
        raise ConfigError(f"attention '{implementation}' cannot read a KV cache: use 'xla' to generate")
    if implementation == "splash":
        return _splash(q_BTHh, k_BSKh, v_BSKh, q_segments, kv_segments, causal, scale, window, soft_cap)
    masking: dict[str, Any] = {"causal": causal, "q_offset": q_offset, "window": window}
    masked = functools.partial(_mask, q_segments=q_segments, kv_segments=kv_segments, seen=seen, **masking)
    T, S = q_BTHh.shape[1], k_BSKh.shape[1]
    if implementation == "cudnn":
        only_causal = causal and q_segments is None
        mask = None if only_causal else masked(0, T, 0, S)
        out_BTHh = jax.nn.dot_product_attention(
            q_BTHh,
            k_BSKh,
            v_BSKh,
            mask=None if mask is None else mask[:, None],
            is_causal=only_causal,
            scale=scale,
            local_window_size=(window - 1, 0) if window and only_causal else None,
            implementation="cudnn",
        )
        return checkpoint_name(out_BTHh, CONTEXT)
    blocks = XLA_BLOCKS if causal and not cached and T % XLA_BLOCKS == 0 and axis_size("sequence") == 1 else 1
    triangular = causal and not cached
    B, _, H, h = q_BTHh.shape
    K = k_BSKh.shape[2]
    whole = all(axis_size(axis) == 1 for axis in ("data", "fsdp", "tensor")) and seen is None
    shape: dict[str, Any] = {"blocks": blocks, "triangular": triangular, "window": window if triangular else 0}
    softmax = functools.partial(_xla, scale=scale, soft_cap=soft_cap, **shape)
    if platform() != "cpu" or not whole or T == 1 or B * H * (T // blocks) * S <= XLA_LOGITS:
        return checkpoint_name(softmax(q_BTHh, k_BSKh, v_BSKh, masked), CONTEXT)

    def group(inputs):
        q_TGh, k_Sh, v_Sh, b = inputs
        ids = [None if x is None else x[b][None] for x in (q_segments, kv_segments)]
        mask = functools.partial(_mask, q_segments=ids[0], kv_segments=ids[1], **masking)
        qkv = q_TGh[None], k_Sh[None, :, None], v_Sh[None, :, None]
        return softmax(*qkv, mask, at_once=max(XLA_ROWS // (H // K), 1))[0]

    split = lambda x_BTKx: x_BTKx.swapaxes(1, 2).reshape(B * K, *x_BTKx.shape[1:2], *x_BTKx.shape[3:])  # noqa: E731
    groups = split(q_BTHh.reshape(B, T, K, H // K, h)), split(k_BSKh), split(v_BSKh), jnp.repeat(jnp.arange(B), K)
    out_BKTGh = jax.lax.map(group, groups, batch_size=max(os.cpu_count() or 1, 2)).reshape(B, K, T, H // K, h)
    return checkpoint_name(out_BKTGh.swapaxes(1, 2).reshape(B, T, H, h), CONTEXT)


def _mask(
    start, count: int, low: int, keys: int, *, q_segments, kv_segments, causal, q_offset, window, seen=None
) -> jax.Array | None:
    """bool `[1 or B, count, keys − low]`: True where a query from `start` on may look; None where all may."""
    if seen is not None:
        return jax.lax.dynamic_slice_in_dim(seen, start, count, axis=1)[:, :, low:keys]
    mask = None
    distance = q_offset + start + jnp.arange(count)[:, None] - jnp.arange(low, keys)[None, :]
    if causal:
        mask = (distance >= 0)[None]
    if window:
        near = (jnp.abs(distance) < window)[None]
        mask = near if mask is None else mask & near
    if q_segments is not None and kv_segments is not None:
        own = jax.lax.dynamic_slice_in_dim(q_segments, start, count, axis=1)
        same = own[:, :, None] == kv_segments[:, None, low:keys]
        mask = same if mask is None else mask & same
    return mask


def _xla(
    q_BTHh,
    k_BSKh,
    v_BSKh,
    masked,
    *,
    blocks: int,
    triangular: bool,
    scale: float,
    soft_cap: float,
    window: int = 0,
    at_once: int | None = None,
) -> jax.Array:
    """Blocks of queries against the keys that they can see, `at_once` queries (default: a whole block) at a time.

    Under a causal mask block `i` of `n` needs the first `(i + 1)/n` of the keys: almost half of the work
    and of the memory is saved. With a window, so are the first of these. Queries of one group are rows of one
    matrix product.
    """
    B, T, H, h = q_BTHh.shape
    S, K = k_BSKh.shape[1], k_BSKh.shape[2]
    G = H // K
    q_BKGTh = (q_BTHh * jnp.asarray(scale, q_BTHh.dtype)).reshape(B, T, K, G, h).transpose(0, 2, 3, 1, 4)
    k_BKSh, v_BKSh = k_BSKh.transpose(0, 2, 1, 3), v_BSKh.transpose(0, 2, 1, 3)

    def looked_up(q_BKGth, start, low: int, s: int):
        t = q_BKGth.shape[3]
        rows_BKRh = q_BKGth.reshape(B, K, G * t, h)
        logits = jnp.einsum("BKRh,BKSh->BKRS", rows_BKRh, k_BKSh[:, :, low:s], preferred_element_type=jnp.float32)
        logits_BKGtS = logits.reshape(B, K, G, t, s - low)
        if soft_cap:
            logits_BKGtS = soft_cap * jnp.tanh(logits_BKGtS / soft_cap)
        mask = masked(start, t, low, s)
        if mask is not None:
            # Finite, so that a row of padding (which sees nothing) stays free of NaN.
            logits_BKGtS = jnp.where(mask[:, None, None], logits_BKGtS, jnp.finfo(jnp.float32).min)
        # Divided by the sum at the end: h numbers a query instead of s.
        powers_BKGtS = jnp.exp(logits_BKGtS - jax.lax.stop_gradient(logits_BKGtS.max(axis=-1, keepdims=True)))
        sums_BKR1 = powers_BKGtS.sum(axis=-1).reshape(B, K, G * t, 1)
        powers_BKRS = powers_BKGtS.astype(q_BTHh.dtype).reshape(B, K, G * t, s - low)
        out_BKRh = jnp.einsum("BKRS,BKSh->BKRh", powers_BKRS, v_BKSh[:, :, low:s], preferred_element_type=jnp.float32)
        return (out_BKRh / sums_BKR1).astype(q_BTHh.dtype).reshape(B, K, G, t, h)

    block = T // blocks
    # The most that a block falls into evenly.
    some = block if at_once is None else max(n for n in range(1, min(at_once, block) + 1) if block % n == 0)
    outputs = []
    for start in range(0, T, block):
        q_BKGth, s = q_BKGTh[:, :, :, start : start + block], start + block if triangular else S
        low = max(0, start - window + 1) if window else 0
        if at_once is None:
            outputs.append(looked_up(q_BKGth, start, low, s))
            continue
        parts = jnp.moveaxis(q_BKGth.reshape(B, K, G, block // some, some, h), 3, 0)
        starts = jnp.arange(start, start + block, some)
        found = jax.lax.map(jax.checkpoint(lambda part, low=low, s=s: looked_up(*part, low, s)), (parts, starts))
        outputs.append(jnp.moveaxis(found, 0, 3).reshape(B, K, G, block, h))
    out_BKGTh = jnp.concatenate(outputs, axis=3) if blocks > 1 else outputs[0]
    return out_BKGTh.transpose(0, 3, 1, 2, 4).reshape(B, T, H, h)


def _splash(q_BTHh, k_BSKh, v_BSKh, q_segments, kv_segments, causal, scale, window, soft_cap) -> jax.Array:
    """Pallas splash attention; queries are sharded over the sequence axis, every device holds all keys."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    B, T, H, _ = q_BTHh.shape
    mesh = jax.sharding.get_abstract_mesh()
    shards = {axis: mesh.shape.get(axis, 1) for axis in ("tensor", "sequence")}
    block = min(SPLASH_BLOCK, T // shards["sequence"])
    compute = min(SPLASH_COMPUTE_BLOCK, block)
    shape = (T, T)
    if window:
        mask = masks.LocalMask(shape, (window - 1, 0 if causal else window - 1), offset=0)
    else:
        mask = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * H),
        head_shards=shards["tensor"],
        q_seq_shards=shards["sequence"],
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=compute,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=compute,
            use_fused_bwd_kernel=True,
        ),
        # The kernel names its output and its log Σ exp itself: without the latter its backward pass would run the
        # forward kernel again, and a name on the transposed output would keep that twice.
        residual_checkpoint_name=CONTEXT,
        attn_logits_soft_cap=soft_cap or None,
    )
    if q_segments is None:
        q_segments = kv_segments = jnp.ones((B, T), jnp.int32)

    def local(kernel, q, k, v, q_segments, kv_segments):
        def one(q, k, v, q_ids, kv_ids):
            return kernel(q, k, v, segment_ids=kernels.SegmentIds(q=q_ids, kv=kv_ids))

        return jax.vmap(one)(q, k, v, q_segments, kv_segments)

    heads_first = [x.transpose(0, 2, 1, 3) for x in (q_BTHh * jnp.asarray(scale, q_BTHh.dtype), k_BSKh, v_BSKh)]
    if mesh.empty:
        out = local(kernel, *heads_first, q_segments, kv_segments)
    else:
        kernel_spec = kernel.manual_sharding_spec(NamedSharding(mesh, spec("heads", "sequence")))
        q_spec = spec("batch", "heads", "sequence", None)
        kv_spec = spec("batch", "kv_heads", None, None)
        out = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(kernel_spec, q_spec, kv_spec, kv_spec, spec("batch", "sequence"), spec("batch", None)),
            out_specs=q_spec,
            check_vma=False,
        )(kernel, *heads_first, q_segments, kv_segments)
    return out.transpose(0, 2, 1, 3)
