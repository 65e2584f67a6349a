"""What a GPU has to show, in nine minutes at most: kernels against each other, speed beside PyTorch, losses, decoding.

    python benchmarks/device_check.py [--output device_check.jsonl] [--minutes 9] [--wheels DIR] [--model DIR]

For one NVIDIA GPU of the Hopper family, with JAX, Flax, Optax, Orbax, PyTorch and transformers. What else is imported
comes from the wheels in DIR, which are unpacked and not installed:

    pip download --no-deps --only-binary :all: -d DIR grain array-record ml-collections

    a  cuDNN attention of packed rows, with and without windows, against `xla`: values and gradients
    b  training step of 1.2B and 2.1B: tokens/s, causal MFU, memory, beside torch.compile + SDPA
    c  fused cross-entropy and KL at 8,192 tokens × 128,256 ids, as a share of their roofline
    d  decoding beside `transformers.generate`, a model of SmolLM2-135M's shape and one of 1.2B
    e  that shape pruned to 75% of its width and distilled: tokens/s, memory; with --model a real folder, for two
       minutes on --text, with held-out bits per byte of parent, child and healed child

What matters most comes first; each line of the plan is a process of its own with a time-out, and each figure is
written as it is there: what was measured before a time-out, a crash or the last minute stays. `--tiny` is the same on
small shapes, on any device, for a test.
"""

import argparse
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
Line = dict[str, Any]
# (part, which of it, most seconds), what matters most first.
PLAN = (
    ("a", "", 60),
    ("b", "1.2b ours", 90),
    ("c", "", 60),
    ("d", "135m", 60),
    ("b", "1.2b compile", 100),
    ("e", "", 80),
    ("b", "2.1b ours", 110),
    ("b", "2.1b compile", 120),
    ("d", "1.2b", 90),
)
TINY = (("a", "", 60), ("b", "tiny ours", 60), ("c", "", 60), ("d", "tiny", 60), ("e", "", 90))
HEALING = 120.0  # seconds of distillation of a real model


def attention(tiny: bool) -> Iterator[Line]:
    """Both kernels in bfloat16 against `xla` in float32."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    B, T, H, K = (1, 64, 4, 2) if tiny else (2, 2048, 16, 4)
    borders = [0, T // 5, T // 5 + T // 2, T]
    segments = jnp.asarray(np.tile(np.repeat([1, 2, 3], np.diff(borders)), (B, 1)), jnp.int32)
    for h in (16,) if tiny else (64, 128):
        keys = jax.random.split(jax.random.key(h), 4)
        shapes = ((B, T, H, h), (B, T, K, h), (B, T, K, h), (B, T, H, h))
        arrays = [jax.random.normal(key, s, jnp.bfloat16) for key, s in zip(keys, shapes)]
        for window in (T // 8,) if tiny else (0, T // 8):
            yield {"head_dim": h, "window": window} | _kernels(arrays, segments, window, 3 if tiny else 10)


def _kernels(arrays: list, segments: Any, window: int, rounds: int) -> Line:
    """Largest errors by the largest value, and times of forward and backward pass.

    Args:
      arrays: queries, keys, values and the output's cotangent, bfloat16.
    """
    import jax
    import jax.numpy as jnp

    from kanana_jax.models.attention import attend, choose

    def run(implementation, q, k, v, cotangent):
        def total(q, k, v):
            out = attend(
                q, k, v, q_segments=segments, kv_segments=segments, causal=True, window=window,
                implementation=implementation,
            )  # fmt: skip
            return (out.astype(jnp.float32) * cotangent.astype(jnp.float32)).sum(), out

        (_, out), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)
        return out, *gradients

    step = jax.jit(run, static_argnums=0)
    _, T, _, h = arrays[0].shape
    chosen = choose("auto", jax.devices()[0].platform, compute_dtype="bfloat16", seq_len=T, head_dim=h)
    with jax.default_matmul_precision("highest"):
        truth = step("xla", *(x.astype(jnp.float32) for x in arrays))
    line: Line = {"kernel": chosen}
    for name in dict.fromkeys((chosen, "xla")):
        found = step(name, *arrays)
        apart = [float(jnp.abs(f.astype(jnp.float32) - t).max() / jnp.abs(t).max()) for f, t in zip(found, truth)]
        line |= {f"{name}_error": apart[0], f"{name}_gradient_error": max(apart[1:])}
        line[f"{name}_ms"] = 1e3 * _seconds(functools.partial(step, name, *arrays), rounds)
    # Both round to bfloat16, 1/256, each in its own places.
    line["equal"] = all(
        line[f"{chosen}{error}"] <= max(0.02, 2 * line[f"xla{error}"]) for error in ("_error", "_gradient_error")
    )
    return line


def training(which: str, tiny: bool) -> Iterator[Line]:
    """A size of `train_step.py`, ours or torch's, in this process."""
    import jax
    from train_step import SIZES, ours, peer

    size, who = which.split()
    shape = (32, 64, 2, 2, 2, 16, 64, 2, 16) if tiny else SIZES[size]
    device = "cpu" if jax.devices()[0].platform == "cpu" else "cuda"
    steps = 2 if tiny else 8
    if who == "ours":
        yield {"size": size} | ours(shape, steps, device)
        return
    import torch

    try:
        yield {"size": size, **peer(shape, steps, device, True), "peak_gib": torch.cuda.max_memory_allocated() / 2**30}
    except torch.cuda.OutOfMemoryError:
        # Its logits are whole, and each layer's activations are kept.
        D, F, L, H, K, h, V, B, T = shape
        yield {"size": size, "who": "torch.compile", "failed": f"{B} rows do not fit, one is taken"}
        torch.cuda.empty_cache()
        yield {"size": size, "rows": 1, **peer((D, F, L, H, K, h, V, 1, T), steps, device, True)}


def losses(tiny: bool) -> Iterator[Line]:
    """Loss and gradients beside the time that the matrix products take at peak."""
    from distill import cross_entropy_alone, loss_alone

    tokens, vocab, wide, narrow = (64, 256, 32, 16) if tiny else (8192, 128_256, 4096, 1792)
    rounds = 2 if tiny else 10
    yield {"loss": "cross-entropy", "width": narrow} | cross_entropy_alone(rounds, tokens, vocab, narrow)
    yield {"loss": "cross-entropy", "width": wide} | cross_entropy_alone(rounds, tokens, vocab, wide)
    yield {"loss": "KL", "width": narrow, "teacher": wide} | loss_alone(rounds, tokens, vocab, wide, narrow)


def decoding(which: str, tiny: bool) -> Iterator[Line]:
    import jax
    from decode import compare, random_llama

    from kanana_jax.models.architecture import Architecture

    shapes = {
        "tiny": Architecture(64, 32, 64, 2, 2, 2, 16, max_seq_len=64),
        "135m": _smollm2(False),
        "1.2b": Architecture(128_256, 2048, 8192, 16, 32, 8, 64, max_seq_len=4096, tied_embeddings=True),
    }
    device = "cpu" if jax.devices()[0].platform == "cpu" else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        random_llama(shapes[which], pathlib.Path(folder))
        for batch in (2,) if tiny else (1, 32):
            how = {"prompt": 8, "new": 8, "rounds": 1} if tiny else {"prompt": 128, "new": 128, "rounds": 2}
            yield {"size": which} | compare(pathlib.Path(folder), batch=batch, device=device, **how)


def compression(model: str, text: str, tiny: bool) -> Iterator[Line]:
    """Importance, cut to 75% of channels and neurons, distillation from the parent; see `compress.py`."""
    from compress import compress

    yield from compress(_smollm2(tiny), model, text, seconds=HEALING if model else 15.0, tiny=tiny)


def _smollm2(tiny: bool):
    from kanana_jax.models.architecture import Architecture

    if tiny:
        return Architecture(64, 32, 64, 2, 2, 2, 16, max_seq_len=64, tied_embeddings=True)
    return Architecture(49_152, 576, 1536, 30, 9, 3, 64, max_seq_len=2048, rope_theta=100_000.0, tied_embeddings=True)


def _seconds(function, rounds: int) -> float:
    import statistics

    import jax

    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def child(options: argparse.Namespace) -> None:
    """One line of the plan, in its own process; prints figures as they are there."""
    part, which = options.child.split(":")
    if part == "d":  # torch shares the card
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    lines = {
        "a": lambda: attention(options.tiny),
        "b": lambda: training(which, options.tiny),
        "c": lambda: losses(options.tiny),
        "d": lambda: decoding(which, options.tiny),
        "e": lambda: compression(options.model, options.text, options.tiny),
    }[part]()
    for line in lines:
        print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in line.items()}), flush=True)


def measured(command: list[str], seconds: float, path: str = "") -> Iterator[Line]:
    """The lines of a command as they come, and a last one where it was stopped or broke off.

    Args:
      path: where it finds modules.
    """
    env = os.environ | {"PYTHONPATH": path}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", start_new_session=True
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        assert process.stdout is not None
        try:
            for text in process.stdout:
                if text.startswith("{"):
                    yield json.loads(text)
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if late.is_set():
            yield {"failed": f"stopped after {seconds:.0f} s"}
        elif code:
            errors.seek(0)
            yield {"failed": (errors.read().strip().splitlines() or [f"exit code {code}"])[-1][:300]}


def unpacked(wheels: pathlib.Path, folder: pathlib.Path) -> None:
    """Every wheel of a folder, as pip lays out what is not a script."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        sys.exit(f"device_check: no wheel in {wheels}: fill it with pip download, see --help")
    for file in files:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)


def table(rows: list[Line]) -> str:
    """The closing table: part, what, figures."""
    out = []
    for row in rows:
        figures = {k: v for k, v in row.items() if k not in ("part", "which", "at_s")}
        out.append(f"{row['part']} {row['which']:<13}" + " · ".join(f"{k} {v}" for k, v in figures.items()))
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("device_check.jsonl"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--wheels", type=pathlib.Path)
    parser.add_argument("--model", default="", help="a Hugging Face folder for part e")
    parser.add_argument("--text", default=str(ROOT / "docs"), help="documents to heal it on; default: these docs")
    parser.add_argument("--parts", nargs="+", default=list("abcde"), choices=list("abcde"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    began, rows = time.monotonic(), []
    arguments = ["--model", options.model, "--text", options.text, *(["--tiny"] if options.tiny else [])]
    with tempfile.TemporaryDirectory() as folder, options.output.open("a", encoding="utf-8") as file:
        if options.wheels:
            unpacked(options.wheels, pathlib.Path(folder))
        path = os.pathsep.join([folder, str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        for part, which, seconds in TINY if options.tiny else PLAN:
            if part not in options.parts:
                continue
            left = 60 * options.minutes - (time.monotonic() - began)
            allowed = min(left, seconds + (HEALING if part == "e" and options.model else 0))
            command = [sys.executable, __file__, "--child", f"{part}:{which}", *arguments]
            for line in measured(command, allowed, path) if left > 10 else [{"failed": "no time left"}]:
                rows.append({"part": part, "which": which, "at_s": round(time.monotonic() - began, 1), **line})
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                print(json.dumps(rows[-1]), flush=True)
    print("\n" + table(rows))
    sys.exit(any("failed" in row or row.get("equal") is False for row in rows))


if __name__ == "__main__":
    main()
