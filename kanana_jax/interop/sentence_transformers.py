"""Writing of the files with which `sentence-transformers` computes the vectors of an exported model.

`modules.json` lists the processing steps: the model (`sentence_bert_config.json`), mean or last-token pooling
(`1_Pooling/`), and normalisation. `config_sentence_transformers.json` holds the instruction as the prompt for queries.
Bidirectional attention is `is_causal = false` in `config.json`, which transformers 5 supports in its decoder classes;
the folder contains no code.
"""

import logging
import pathlib
from typing import Any

import numpy as np

from kanana_jax.data.tokens import folder as names
from kanana_jax.data.tokens.tokenizer import Tokenizer, load_tokenizer
from kanana_jax.errors import UserError
from kanana_jax.files import write_json
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.embedding import Embedding

log = logging.getLogger("kanana")
_BEGINNINGS = ("가", "a", "あ", "漢", "7", "(")  # first characters of queries to try


def config_keys(about: Embedding, architecture: Architecture) -> dict[str, Any]:
    """Keys to add to `config.json`.

    Raises:
      UserError: the model has bidirectional sliding windows, which transformers makes one token wider than causal ones.
    """
    if about.causal:
        return {}
    if any(kind.window for kind in architecture.layer_pattern):
        raise UserError(
            "transformers has no class for windows that attend to both sides: use the model with `kanana embed`"
        )
    return {"is_causal": False}


def write(folder: pathlib.Path, about: Embedding, architecture: Architecture) -> None:
    """Adds the files to an exported folder, and a padding token if its tokenizer has none."""
    tokenizer = load_tokenizer(folder)
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    longest = min(about.longest or architecture.max_seq_len, architecture.max_seq_len)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    pooling = {
        "word_embedding_dimension": architecture.embed_dim,
        "pooling_mode_mean_tokens": about.pooling == "mean",
        "pooling_mode_lasttoken": about.pooling == "last",
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": False,
        "include_prompt": about.counts_instruction,
    }
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)
    prompts = {"query": about.instruction, "document": about.document}
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    _pad(folder)
    if about.instruction and not ends_at_a_token(tokenizer, about.instruction):
        log.warning(
            "the instruction's last token runs on into a text: sentence-transformers leaves that token out of a "
            "query's mean, and kanana embed counts it; an instruction that ends in a line break has no such token"
        )


def _pad(folder: pathlib.Path) -> None:
    """Configures padding on the right, with EOS if the tokenizer has no padding token."""
    found = names.named_tokens(folder)
    told = names.read_json(folder / names.CONFIG)
    pad = found.get("pad_token") or found.get("eos_token")
    write_json(folder / names.CONFIG, told | {"pad_token": pad, "padding_side": "right"})


def ends_at_a_token(tokenizer: Tokenizer, instruction: str) -> bool:
    """Whether an instruction keeps its tokens when a text follows it; tested with several first characters."""
    alone = tokenizer.encode(instruction)
    together = (tokenizer.encode(instruction + text)[: len(alone)] for text in _BEGINNINGS)
    return all(np.array_equal(alone, own) for own in together)
