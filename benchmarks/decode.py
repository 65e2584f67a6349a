"""Greedy generation against `transformers.generate`, the same weights, in one run.

python benchmarks/decode.py [--batch 8] [--prompt 32] [--new 128]
"""

import argparse
import json
import os
import statistics
import tempfile
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 8), ("prompt", 32), ("new", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    import jax
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kanana_jax.inference.generate import generate
    from kanana_jax.interop import model_folder
    from kanana_jax.models.architecture import Runtime
    from kanana_jax.models.model import Model
    from kanana_jax.parallel.mesh import MeshConfig, make_mesh

    torch.set_num_threads(os.cpu_count() or 1)
    for width, mlp, layers, heads, kv, head_dim, vocab in (
        (192, 512, 4, 6, 2, 32, 4096),
        (512, 1536, 8, 8, 4, 64, 8192),
    ):
        config = LlamaConfig(
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv,
            head_dim=head_dim,
            vocab_size=vocab,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            initializer_range=0.1,
            bos_token_id=1,
            eos_token_id=None,
        )
        theirs = LlamaForCausalLM(config).eval()
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            found = model_folder.find(folder)
            params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
        rng = np.random.default_rng(0)
        prompts = rng.integers(3, vocab, (options.batch, options.prompt)).astype(np.int32)
        runtime = Runtime(scan_layers=False)

        def ours(params=params, found=found, prompts=prompts, runtime=runtime):
            return generate(params, Model(found.architecture, runtime), list(prompts), max_new_tokens=options.new)

        def peer(theirs=theirs, prompts=prompts):
            with torch.no_grad():
                return theirs.generate(
                    torch.tensor(prompts.astype(np.int64)),
                    max_new_tokens=options.new,
                    min_new_tokens=options.new,
                    do_sample=False,
                    pad_token_id=0,
                )

        mine, reference = np.stack(ours()), peer()[:, options.prompt :].numpy()
        times: dict[str, list[float]] = {"ours": [], "transformers": []}
        for _ in range(options.rounds):
            for name, function in (("ours", ours), ("transformers", peer)):
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
        rates = {name: options.batch * options.new / statistics.median(t) for name, t in times.items()}
        print(
            json.dumps(
                {
                    "width": width,
                    "layers": layers,
                    "batch": options.batch,
                    "new": options.new,
                    **{f"{name}_tokens_per_s": round(rate, 1) for name, rate in rates.items()},
                    "ratio": round(rates["ours"] / rates["transformers"], 2),
                    "same_tokens": float((mine == reference).mean()),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
