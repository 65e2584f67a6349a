"""Training step against transformers + torch on the same machine, in one run, alternately.

    python benchmarks/train_step.py [--sizes small medium large] [--rounds 3] [--device cpu]

Same shapes, batch and precision; torch eager and torch.compile with SDPA and fused AdamW, both cores; ours with
packed segments, z-loss and clipping on top. Each size runs `--rounds` times in turns, in processes of their own;
the best of each is compared. Both sides run with and without huge pages for malloc, since ours turns them on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# embed, mlp, layers, heads, kv heads, head_dim, vocabulary, batch, sequence
SIZES = {
    "small": (128, 384, 4, 4, 2, 32, 4096, 8, 256),
    "medium": (256, 768, 6, 8, 4, 32, 8192, 8, 256),
    "large": (512, 1536, 8, 8, 4, 64, 8192, 8, 256),
    # For an accelerator (`tune_step.py`): 1.2B at 4,096, Kanana Nano 2.1B at 8,192 tokens, four layers of the 8B.
    "1.2b": (2048, 8192, 16, 32, 8, 64, 128256, 4, 4096),
    "2.1b": (1792, 8064, 32, 24, 8, 128, 128256, 2, 8192),
    "8b-4-layers": (4096, 14336, 4, 32, 8, 128, 128256, 2, 8192),
}


def ours(shape, steps: int, device: str, *, remat="", attends="auto", chunk=1024, rows=1, profile="") -> dict:
    """Tokens/s of our step.

    Args:
      remat: a policy; empty: `context` on an accelerator, none on a CPU.
      attends: an implementation of attention, see `attention.choose`.
      chunk: tokens whose logits exist at once.
      rows: times the size's batch.
      profile: folder for a trace of the last steps.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from kanana_jax.data.stream.packing import Rows
    from kanana_jax.models import attention, counts, transformer
    from kanana_jax.models.architecture import Architecture, Runtime
    from kanana_jax.models.model import Model
    from kanana_jax.parallel.chips import peak_flops, utilisation
    from kanana_jax.stages import pretrain
    from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
    from kanana_jax.training.step import init_state, make_train_step

    D, F, L, H, K, h, V, B, T = shape
    B *= rows
    a = Architecture(V, D, F, L, H, K, h, max_seq_len=T)
    accelerator = device != "cpu"
    runtime = Runtime(
        compute_dtype="bfloat16" if accelerator else "float32",
        scan_layers=accelerator,
        remat=remat or ("context" if accelerator else "none"),
    )
    chosen = attention.choose(
        attends, jax.devices()[0].platform, compute_dtype=runtime.compute_dtype, seq_len=T, head_dim=h
    )
    loss = pretrain.make_loss(Model(a, runtime, chosen), z_loss=5e-6, chunk=chunk)
    optimizer = make_optimizer(OptimizerConfig(1e-3), 1000, transformer.logical_axes(a))
    params = jax.jit(lambda k: transformer.init_params(a, runtime, k))(jax.random.key(0))
    state = init_state(params, optimizer, 0)
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, V, (B, T + 1)), jnp.int32)
    segments = jnp.asarray(np.repeat([[1, 2]], T // 2, axis=1).repeat(B, 0), jnp.int32)
    batch = Rows(
        inputs=tokens[:, :-1],
        targets=tokens[:, 1:],
        segment_ids=segments,
        positions=jnp.tile(jnp.arange(T, dtype=jnp.int32), (B, 1)),
        weights=jnp.ones((B, T)),
        source=jnp.zeros(B, jnp.int32),
    )
    step = jax.jit(make_train_step(loss, optimizer), donate_argnums=0).lower(state, batch).compile()
    times = []
    for i in range(steps + 3):
        if profile and i == steps:
            jax.profiler.start_trace(profile)
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        if i >= 3:
            times.append(time.perf_counter() - start)
    if profile:
        jax.profiler.stop_trace()
    seconds, memory = statistics.median(times), step.memory_analysis()
    flops = counts.train_flops_per_token(a, T) * B * T / seconds
    return {
        "who": "kanana-jax",
        "version": jax.__version__,
        "attention": chosen,
        "tokens_per_s": B * T / seconds,
        "gflops": flops / 1e9,
        "causal_mfu": utilisation(flops, *peak_flops(jax.devices()[0])),
        "peak_gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
        "parameters": counts.parameters(a),
    }


def peer(shape, steps: int, device: str, compiled: bool) -> dict:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    D, F, L, H, K, h, V, B, T = shape
    torch.set_num_threads(os.cpu_count() or 1)
    config = LlamaConfig(
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=L,
        num_attention_heads=H,
        num_key_value_heads=K,
        head_dim=h,
        vocab_size=V,
        max_position_embeddings=T,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, V, (B, T), device=device)
    forward = torch.compile(model) if compiled else model
    times = []
    for i in range(steps + 3):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            loss = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    name = "torch.compile" if compiled else "torch eager"
    return {"who": name, "version": torch.__version__, "tokens_per_s": B * T / statistics.median(times)}


def child(
    size: str, who: str, steps: int, device: str, huge_pages: bool = True, flags: str = "", **change
) -> dict | None:
    """What a process of its own measures, or None and a line on stderr.

    Args:
      who: `ours`, `eager` or `compile`.
      flags: XLA's, for this process.
      change: options of `ours`.
    """
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if huge_pages:
        env["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    if flags:
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {flags}".strip()
    command = [sys.executable, __file__, "--child", who, "--sizes", size, "--steps", str(steps), "--device", device]
    result = subprocess.run([*command, "--change", json.dumps(change)], env=env, capture_output=True, encoding="utf-8")
    if result.returncode:
        print(f"{who} {change} failed: {(result.stderr.strip().splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    return json.loads(result.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium", "large"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--child", choices=("ours", "eager", "compile"), help=argparse.SUPPRESS)
    parser.add_argument("--change", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        asked = SIZES[options.sizes[0]], options.steps, options.device
        change = json.loads(options.change)
        found = ours(*asked, **change) if options.child == "ours" else peer(*asked, options.child == "compile")
        print(json.dumps(found))
        return
    for size in options.sizes:
        best: dict[tuple[str, bool], float] = {}
        for _ in range(options.rounds):
            for who in ("ours", "compile", "eager"):
                for huge_pages in (True, False):
                    result = child(size, who, options.steps, options.device, huge_pages)
                    if result:
                        key = (who, huge_pages)
                        best[key] = max(best.get(key, 0.0), result["tokens_per_s"])
        rate = {
            who: max((v for (w, _), v in best.items() if w == who), default=None)
            for who in ("ours", "compile", "eager")
        }
        line = {
            "size": size,
            "ours_tokens_per_s": best.get(("ours", True)),
            "ours_without_huge_pages": best.get(("ours", False)),
            "torch_compile": best.get(("compile", False)),
            "torch_compile_huge_pages": best.get(("compile", True)),
            "torch_eager": rate["eager"],
        }
        if rate["ours"] and rate["compile"]:
            line["ratio_to_best_torch"] = rate["ours"] / max(rate["compile"], rate["eager"] or 0.0)
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}), flush=True)


if __name__ == "__main__":
    main()
