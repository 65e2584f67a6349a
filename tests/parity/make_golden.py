"""Writes `tests/golden/llama.npz`: logits of `transformers` for weights that NumPy alone can make again.

python tests/parity/make_golden.py
"""

import pathlib
import zlib

import numpy as np

from kanana_jax.interop.families import family_of
from kanana_jax.models.architecture import Architecture, RopeScaling

BASE = dict(
    vocab_size=61,
    embed_dim=24,
    mlp_dim=40,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_seq_len=128,
    rope_theta=10_000.0,
)
CASES = {
    "untied": Architecture(**BASE),
    "tied": Architecture(**BASE, tied_embeddings=True),
    "llama3": Architecture(**BASE, rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0)),
    "yarn": Architecture(**BASE, rope_scaling=RopeScaling("yarn", 4.0, 32)),
    "qwen3": Architecture(**BASE, qk_norm="head"),
}
TOKENS = np.random.RandomState(0).randint(0, 61, (2, 40))


def weights(architecture: Architecture) -> dict[str, np.ndarray]:
    """Hugging Face tensors drawn from each name."""
    tensors = [t for group in family_of(architecture).groups(architecture) for t in group]
    return {
        t.name: 0.3 * np.random.RandomState(zlib.crc32(t.name.encode())).randn(*t.shape).astype(np.float32)
        for t in tensors
    }


def main() -> None:
    import torch
    import transformers

    logits = {}
    for name, architecture in CASES.items():
        family = family_of(architecture)
        theirs = getattr(transformers, family.class_name)
        config = family.to_config(architecture, "float32", {"bos_token_id": 1, "eos_token_id": 2})
        model = theirs(theirs.config_class(**config)).eval()
        model.load_state_dict({k: torch.tensor(v) for k, v in weights(architecture).items()}, strict=False)
        model.tie_weights()
        with torch.no_grad():
            logits[name] = model(torch.tensor(TOKENS)).logits.numpy()
    np.savez_compressed(pathlib.Path(__file__).parents[1] / "golden" / "llama.npz", **logits)


if __name__ == "__main__":
    main()
