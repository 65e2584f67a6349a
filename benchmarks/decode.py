"""Generation against `transformers.generate`, the same weights, in one run, alternately.

    python benchmarks/decode.py [--model FOLDER] [--batch 8] [--prompt 32] [--new 128] [--rounds 3] [--answers 8]

Random Llamas of two sizes, or a Hugging Face folder. One JSON line per model: tokens/s by the wall clock, the median of
the rounds, and seconds of the process's CPUs, which tell more where other programs run; compiling counts in neither.
End symbols end nothing. `same_tokens` is the share of new tokens that both have written alike.

Greedy; or, with `--answers`, N sampled answers to each of `--batch` prompts, as stages that learn from them need: ours
with the log-probability of every token, theirs without.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np

from kanana_jax.models.architecture import Architecture

# vocabulary, embed, mlp, layers, heads, KV heads, head_dim
SIZES = {
    "small": Architecture(4096, 192, 512, 4, 6, 2, 32, max_seq_len=1024),
    "33m": Architecture(8192, 512, 1536, 8, 8, 4, 64, max_seq_len=1024),
}


def random_llama(a: Architecture, folder: pathlib.Path) -> None:
    """A folder with random weights, wide enough that greedy tokens differ from one another."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=a.embed_dim,
        intermediate_size=a.mlp_dim,
        num_hidden_layers=a.num_layers,
        num_attention_heads=a.num_heads,
        num_key_value_heads=a.num_kv_heads,
        head_dim=a.head_dim,
        vocab_size=a.vocab_size,
        max_position_embeddings=a.max_seq_len,
        tie_word_embeddings=a.tied_embeddings,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def compare(
    folder: pathlib.Path, *, batch: int, prompt: int, new: int, rounds: int, answers: int = 0, device: str = "cpu"
) -> dict:
    """Rates of both on random prompts.

    Args:
      batch, prompt, new: prompts, and tokens per prompt that are read and per answer that are written.
      answers: sampled ones to each prompt; 0: a greedy one.
      device: `cpu` (float32) or `cuda` (bfloat16).
    """
    import jax
    import torch
    from transformers import AutoModelForCausalLM

    from kanana_jax.inference.generate import generate
    from kanana_jax.inference.rollout import RolloutConfig, rollout
    from kanana_jax.interop import model_folder
    from kanana_jax.models.architecture import Runtime
    from kanana_jax.models.model import Model
    from kanana_jax.parallel.mesh import MeshConfig, make_mesh

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dtype = "float32" if device == "cpu" else "bfloat16"
    runtime = Runtime(param_dtype=dtype, compute_dtype=dtype)
    found = model_folder.find(folder)
    params = model_folder.load_params(found, runtime, make_mesh(MeshConfig(), jax.devices()[:1]))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
    theirs.generation_config.eos_token_id = None
    prompts = np.random.default_rng(0).integers(3, found.architecture.vocab_size, (batch, prompt)).astype(np.int32)

    model, vocab = Model(found.architecture, runtime), found.architecture.vocab_size

    def ours() -> np.ndarray:
        if answers:
            config, key = RolloutConfig(samples=answers, max_new_tokens=new), jax.random.key(0)
            groups = rollout(params, model, list(prompts), config, stop=(), tokens=vocab, key=key)
            return np.stack([answer.ids for group in groups for answer in group])
        return np.stack(generate(params, model, list(prompts), max_new_tokens=new))

    def peer() -> np.ndarray:
        ids = torch.tensor(prompts.astype(np.int64), device=device)
        how: dict = dict(do_sample=True, top_k=0, num_return_sequences=answers) if answers else dict(do_sample=False)
        with torch.no_grad():
            out = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, pad_token_id=0, **how
            )
        return out[:, prompt:].cpu().numpy()

    line: dict = {"layers": found.architecture.num_layers, "width": found.architecture.embed_dim, "batch": batch}
    line |= {"answers": answers} if answers else {}
    same = float((ours() == peer()).mean())
    tokens = batch * max(1, answers) * new
    wall: dict[str, list[float]] = {"ours": [], "transformers": []}
    cpu: dict[str, list[float]] = {"ours": [], "transformers": []}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("transformers", peer)):
            start, used = time.perf_counter(), time.process_time()
            function()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    seconds = {name: statistics.median(times) for name, times in wall.items()}
    used = {name: statistics.median(times) for name, times in cpu.items()}
    return line | {
        "new": new,
        **{f"{name}_tokens_per_s": round(tokens / s, 1) for name, s in seconds.items()},
        **{f"{name}_cpu_s": round(s, 2) for name, s in used.items()},
        "ratio": round(seconds["transformers"] / seconds["ours"], 2),
        "cpu_ratio": round(used["transformers"] / used["ours"], 2),
        **({} if answers else {"same_tokens": same}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    for name, default in (("batch", 8), ("prompt", 32), ("new", 128), ("rounds", 3), ("answers", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    how = {name: getattr(options, name) for name in ("batch", "prompt", "new", "rounds", "answers")}
    if options.model:
        print(json.dumps({"model": options.model.name} | compare(options.model, **how)))
        return
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            random_llama(SIZES[size], pathlib.Path(folder))
            print(json.dumps({"model": size} | compare(pathlib.Path(folder), **how)), flush=True)


if __name__ == "__main__":
    main()
