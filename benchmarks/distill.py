"""What distillation costs beside what it is made of, in one run, alternately.

    python benchmarks/distill.py [--sizes small medium] [--rounds 5] [--device cpu] [--memory]

Times of a training step of the student on text, a forward pass of the teacher (with its logits, in chunks), a
distillation step, and a distillation step as it is usually written: both `[B, T, V]` logits, log-softmax, autodiff.
`--memory` compiles the two steps at the vocabulary of Llama 3 (128,256) and prints what XLA sets aside; nothing runs.
On an accelerator also the fused loss alone at 8,192 tokens, against the time that its matrix products take at peak.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.data.stream.packing import Rows
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.losses.distillation import DistillationConfig, distillation
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import init_params
from kanana_jax.parallel import chips
from kanana_jax.stages import distill, pretrain
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.step import LossOutput, init_state, make_train_step

LLAMA3_VOCAB = 128_256


@dataclasses.dataclass(frozen=True)
class Case:
    teacher: Architecture
    student: Architecture
    batch: int
    seq_len: int
    chunk: int = 1024


def _pair(vocab: int, teacher: tuple, student: tuple, batch: int, seq_len: int) -> Case:
    a, b = (Architecture(vocab, *shape, max_seq_len=seq_len, tied_embeddings=True) for shape in (teacher, student))
    return Case(a, b, batch, seq_len)


# embed, mlp, layers, heads, KV heads, head_dim of teacher and student; batch, sequence
SIZES = {
    "small": _pair(4096, (192, 512, 4, 6, 2, 32), (128, 320, 4, 4, 2, 32), 16, 256),
    "medium": _pair(8192, (384, 1152, 6, 12, 4, 32), (256, 704, 6, 8, 4, 32), 8, 256),
    # A wide vocabulary on a small body: what the loss costs when nearly everything is logits.
    "wide": _pair(32768, (192, 512, 4, 6, 2, 32), (128, 320, 4, 4, 2, 32), 4, 256),
    # For an accelerator: 4.5B teaching 2.1B.
    "nano": _pair(LLAMA3_VOCAB, (3072, 9216, 32, 32, 8, 128), (1792, 8064, 32, 24, 8, 128), 1, 8192),
}
MEMORY = _pair(LLAMA3_VOCAB, (384, 1024, 4, 6, 2, 64), (256, 768, 4, 4, 2, 64), 4, 1024)


def naive_loss(student: Model, teacher: Model):
    """Forward KL as it is usually written."""

    def loss(params, batch, rng, frozen):
        def logits(model, params):
            hidden, matrix = model(params, batch)
            return jnp.einsum("BTD,VD->BTV", hidden, matrix.astype(hidden.dtype), preferred_element_type=jnp.float32)

        log_q = jax.nn.log_softmax(logits(student, params))
        log_p = jax.nn.log_softmax(logits(teacher, jax.lax.stop_gradient(frozen)))
        divergence = ((jnp.exp(log_p) * (log_p - log_q)).sum(-1) * batch.weights).sum()
        tokens = batch.weights.sum()
        return LossOutput(divergence, tokens, {})

    return loss


def make(case: Case, device: str):
    """The four functions, with abstract arguments: `{name: (function, arguments)}`."""
    accelerator = device != "cpu"
    runtime = Runtime(
        compute_dtype="bfloat16" if accelerator else "float32",
        scan_layers=accelerator,
        remat="context" if accelerator else "none",
    )
    teaching = dataclasses.replace(
        runtime, param_dtype="bfloat16" if accelerator else "float32", compute_dtype=runtime.compute_dtype, remat="none"
    )
    platform = jax.devices()[0].platform
    student = Model.on(platform, case.student, runtime, case.seq_len)
    teacher = Model(case.teacher, teaching, student.implementation)
    optimizer = make_optimizer(OptimizerConfig(1e-3), 1000, student.logical_axes())
    on_text = pretrain.make_loss(student, z_loss=0.0, chunk=case.chunk)
    fused = distill.make_loss(student, teacher, config=DistillationConfig(), chunk=case.chunk)
    naive = naive_loss(student, teacher)

    def forward(frozen, batch):
        hidden, matrix = teacher(frozen, batch)
        return cross_entropy(hidden, matrix, batch.targets, batch.weights, chunk=case.chunk).nll

    state = jax.eval_shape(lambda: init_state(init_params(case.student, runtime, jax.random.key(0)), optimizer, 0))
    frozen = teacher.abstract_params()
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _batch(case))
    step = functools.partial(make_train_step, optimizer=optimizer)
    return {
        "student_step": (jax.jit(step(on_text), donate_argnums=0), (state, batch)),
        "teacher_forward": (jax.jit(forward), (frozen, batch)),
        "distill_step": (jax.jit(step(fused), donate_argnums=0), (state, batch, frozen)),
        "naive_step": (jax.jit(step(naive), donate_argnums=0), (state, batch, frozen)),
    }


def _batch(case: Case) -> Rows[np.ndarray]:
    B, T = case.batch, case.seq_len
    tokens = np.random.default_rng(0).integers(0, case.student.vocab_size, (B, T + 1)).astype(np.int32)
    return Rows(
        inputs=tokens[:, :-1],
        targets=tokens[:, 1:],
        segment_ids=np.repeat([[1, 2]], T // 2, axis=1).repeat(B, 0).astype(np.int32),
        positions=np.tile(np.arange(T, dtype=np.int32), (B, 1)),
        weights=np.ones((B, T), np.float32),
        source=np.zeros(B, np.int32),
    )


def speed(name: str, case: Case, rounds: int, device: str) -> dict:
    def fill(tree):  # the values do not matter for the time, but for the key, which is random bits
        return jax.tree.map(lambda x: jnp.full(x.shape, 0 if x.dtype == jnp.uint32 else 0.01, x.dtype), tree)

    functions = make(case, device)
    batch = jax.tree.map(jnp.asarray, _batch(case))
    (state, _, frozen) = functions["distill_step"][1]
    state, frozen = fill(state), fill(frozen)
    times: dict[str, list[float]] = {which: [] for which in functions}
    for i in range(rounds + 2):
        for which, (function, _) in functions.items():
            began = time.perf_counter()
            if which == "teacher_forward":
                jax.block_until_ready(function(frozen, batch))
            else:
                extra = () if which == "student_step" else (frozen,)
                state, _ = jax.block_until_ready(function(state, batch, *extra))
            if i >= 2:
                times[which].append(time.perf_counter() - began)
    ms = {which: 1e3 * statistics.median(values) for which, values in times.items()}
    parts = ms["student_step"] + ms["teacher_forward"]
    return {
        "size": name,
        "teacher": counts.parameters(case.teacher),
        "student": counts.parameters(case.student),
        "vocab": case.student.vocab_size,
        **{f"{which}_ms": round(value, 1) for which, value in ms.items()},
        "ratio": round(ms["distill_step"] / parts, 3),
        "naive_ratio": round(ms["naive_step"] / parts, 3),
    }


def memory(case: Case, device: str) -> dict:
    """Bytes that XLA sets aside for intermediate values, beyond arguments and results."""
    functions = make(case, device)
    line = {"vocab": case.student.vocab_size, "tokens": case.batch * case.seq_len}
    for which in ("student_step", "distill_step", "naive_step"):
        function, arguments = functions[which]
        line[f"{which}_temp_mb"] = round(
            function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes / 1e6
        )
    frozen = functions["teacher_forward"][1][0]
    line["teacher_mb"] = round(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(frozen)) / 1e6)
    line["ratio"] = round(line["distill_step_temp_mb"] / line["student_step_temp_mb"], 3)
    line["naive_ratio"] = round(line["naive_step_temp_mb"] / line["student_step_temp_mb"], 3)
    return line


def loss_alone(rounds: int, tokens: int = 8192, vocab: int = LLAMA3_VOCAB, width: int = 4096, narrow: int = 1792):
    """The fused loss with its gradients at full size, as a share of what its matrix products need at peak."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((1, tokens, narrow), (vocab, narrow), (1, tokens, width), (vocab, width))
    student, matrix, teacher, frozen = (0.02 * jax.random.normal(k, s, jnp.bfloat16) for k, s in zip(keys, shapes))
    targets, weights = jnp.zeros((1, tokens), jnp.int32), jnp.ones((1, tokens))

    @jax.jit
    def both(student, matrix, teacher, frozen):
        def loss(student, matrix):
            return distillation(student, matrix, teacher, frozen, targets, weights, config=DistillationConfig()).loss

        return jax.value_and_grad(loss, argnums=(0, 1))(student, matrix)

    # Student logits and two gradients, teacher logits.
    flops = 2.0 * tokens * vocab * (3 * narrow + width)
    return _against_peak(lambda: both(student, matrix, teacher, frozen), rounds, tokens, vocab, flops)


def cross_entropy_alone(rounds: int, tokens: int = 8192, vocab: int = LLAMA3_VOCAB, width: int = 4096):
    """The fused cross-entropy with its gradients, likewise: logits and two gradients."""
    keys = jax.random.split(jax.random.key(0), 2)
    hidden = 0.02 * jax.random.normal(keys[0], (1, tokens, width), jnp.bfloat16)
    matrix = 0.02 * jax.random.normal(keys[1], (vocab, width), jnp.bfloat16)
    targets, weights = jnp.zeros((1, tokens), jnp.int32), jnp.ones((1, tokens))

    @jax.jit
    def both(hidden, matrix):
        return jax.value_and_grad(lambda h, m: cross_entropy(h, m, targets, weights).loss, argnums=(0, 1))(
            hidden, matrix
        )

    return _against_peak(lambda: both(hidden, matrix), rounds, tokens, vocab, 6.0 * tokens * vocab * width)


def _against_peak(function, rounds: int, tokens: int, vocab: int, flops: float) -> dict:
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    bound = flops / chips.peak_flops(jax.devices()[0])[0]
    seconds = statistics.median(times[2:])
    return {"tokens": tokens, "vocab": vocab, "ms": 1e3 * seconds, "roofline_ms": 1e3 * bound, "share": bound / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium", "wide"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda", "tpu"), default="cpu")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory(MEMORY, options.device)))
        return
    for size in options.sizes:
        print(json.dumps(speed(size, SIZES[size], options.rounds, options.device)), flush=True)
    if options.device != "cpu":
        print(json.dumps(loss_alone(options.rounds)))


if __name__ == "__main__":
    main()
