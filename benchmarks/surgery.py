"""Surgery on models of the paper's size: time and peak memory on this machine.

    python benchmarks/surgery.py --folder runs/surgery [--model essence_8b]

Writes a random model in bfloat16, prunes it to the next of the chain (8B: 4.5B, in width), and makes it deeper
(32 → 40 layers), each in a process of its own, from folder to folder. Scores are random: what takes time here is the
surgery. The folder needs room for two and a quarter models (36 GB for the 8B); what is done is deleted.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import ml_dtypes
import numpy as np

from kanana_jax.files import write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import llama
from kanana_jax.interop.safetensors import Writer
from kanana_jax.models import counts, presets
from kanana_jax.surgery import prune, streaming, upscale
from kanana_jax.surgery.importance import Importance


def make(folder: pathlib.Path, name: str) -> None:
    """A Hugging Face folder of random weights, written a layer at a time."""
    a = getattr(presets, name)()
    folder.mkdir(parents=True)
    writer, draw = Writer(folder, a.num_layers + 1), np.random.default_rng(0)
    for index, group in enumerate(llama.FAMILY.groups(a)):
        tensors = {}
        for tensor in group:
            value = draw.standard_normal(tensor.shape, np.float32)
            tensors[tensor.name] = (0.02 * value).astype(ml_dtypes.bfloat16)
            writer.record(index, tensor.name, tensors[tensor.name].nbytes)
        writer.write(index, tensors)
    writer.finish()
    write_json(folder / "config.json", llama.FAMILY.to_config(a, "bfloat16", {"bos_token_id": 1, "eos_token_id": 2}))


def cut(folder: pathlib.Path, source: pathlib.Path, name: str) -> None:
    parent, b = model_folder.find(source), getattr(presets, name)()
    a, draw = parent.architecture, np.random.default_rng(0)
    scores = Importance(
        draw.random(a.embed_dim, np.float32),
        draw.random((a.num_layers, a.mlp_dim), np.float32),
        draw.random((a.num_layers, a.num_heads), np.float32),
        draw.random(a.num_layers, np.float32),
        draw.random((2 * a.num_layers + 1, a.embed_dim), np.float32),
        np.full((a.num_layers, a.num_layers), np.inf, np.float32),
    )
    shape = prune.PruneConfig(embed_dim=b.embed_dim, mlp_dim=b.mlp_dim, num_heads=b.num_heads, rescale_norms=True)
    cuts = prune.cut_list(a, shape, scores)
    streaming.apply_to_folder(cuts, parent, folder, model_folder.card(cuts.after))


def deepen(folder: pathlib.Path, source: pathlib.Path, num_layers: int) -> None:
    parent = model_folder.find(source)
    cuts = upscale.cut_list(parent.architecture, upscale.UpscaleConfig(num_layers))
    streaming.apply_to_folder(cuts, parent, folder, model_folder.card(cuts.after))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="essence_8b")
    parser.add_argument("--pruned", default="nano_4_5b")
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--child", choices=("make", "prune", "upscale"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    source, result = options.folder / "model", options.folder / "result"
    if options.child:
        began = time.perf_counter()
        if options.child == "make":
            make(source, options.model)
        elif options.child == "prune":
            cut(result, source, options.pruned)
        else:
            deepen(result, source, options.layers)
        found = source if options.child == "make" else result
        line = {
            "what": options.child,
            "seconds": round(time.perf_counter() - began, 1),
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "parameters": counts.parameters(model_folder.find(found).architecture),
            "gb": round(sum(f.stat().st_size for f in found.glob("*.safetensors")) / 1e9, 1),
        }
        print(json.dumps(line), flush=True)
        return
    shutil.rmtree(options.folder, ignore_errors=True)
    for child in ("make", "prune", "upscale"):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child", child], check=True)
        shutil.rmtree(result, ignore_errors=True)
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
