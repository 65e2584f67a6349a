"""Writing of a model folder as one GGUF file, with one tensor in memory at a time."""

import importlib
import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kanana_jax.data.tokens.folder import named_tokens
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.files import whole_file
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import family_of
from kanana_jax.interop.families.family import canonical
from kanana_jax.interop.families.names import Tensor
from kanana_jax.interop.gguf import vocabulary
from kanana_jax.interop.gguf.architectures import LlamaCpp, architecture_of
from kanana_jax.interop.gguf.vocabulary import Vocabulary
from kanana_jax.interop.weights import Weights
from kanana_jax.models import rope
from kanana_jax.models.architecture import Architecture

log = logging.getLogger("kanana")
# `general.file_type` (llama.h).
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
_OF_FOLDER = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_MOST_F16 = 65504.0
_NAMES = {
    "embedding": "token_embd",
    "final_norm": "output_norm",
    "unembedding": "output",
    "attention_norm": "attn_norm",
    "attention_post_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "mlp_post_norm": "post_ffw_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


class Part(NamedTuple):
    """One tensor of the file.

    Attributes:
      name: llama.cpp's name.
      shape: in NumPy's order, rows first (the file stores it reversed).
      make: makes the values, in float32 or the folder's dtype.
      exact: whether it is kept in float32, as norm scales, biases, routers and RoPE factors are.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]
    exact: bool


def export(source: pathlib.Path, destination: pathlib.Path, dtype: str = "") -> None:
    """Writes a model with its tokenizer and chat template as a GGUF file, completely or not at all.

    Args:
      dtype: dtype of the matrices, a key of `FILE_TYPES`; default: the folder's.

    Raises:
      UserError: llama.cpp does not compute the model or would tokenize texts differently; the package gguf is missing;
        or a value is beyond float16.
      ConfigError: the dtype is unknown, or the file exists.
    """
    if dtype and dtype not in FILE_TYPES:
        raise ConfigError(f"'{dtype}' is not a dtype of GGUF; known are {', '.join(FILE_TYPES)}")
    found = model_folder.find(source)
    if found.embedding is not None and not found.embedding.causal:
        raise UserError(
            f"{source} attends to both sides, which GGUF files written here cannot express: export a folder instead"
        )
    spec = architecture_of(found.architecture, str(source))
    library = _library()
    if destination.exists():
        raise ConfigError(f"{destination} exists: name another file")
    words = vocabulary.read(found.path, found.architecture.vocab_size)
    weights = model_folder.open_weights(found)
    dtype = dtype or _OF_FOLDER[weights.dtype]
    with whole_file(destination) as partial:
        writer = library.GGUFWriter(partial, spec.name)
        _describe(writer, found.architecture, spec, source.resolve().name, dtype)
        _describe_vocabulary(writer, words, found.path)
        parts = list(_parts(found.architecture, spec, weights))
        kinds = [_kind(library, part, dtype) for part in parts]
        for part, kind in zip(parts, kinds, strict=True):
            shape = library.quant_shape_to_byte_shape(part.shape, kind)
            plain = {"F32": np.float32, "F16": np.float16}.get(kind.name)
            of_file = part.shape if plain else shape
            writer.add_tensor_info(part.name, of_file, np.dtype(plain or np.uint8), math.prod(shape), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for part, kind in zip(parts, kinds, strict=True):
            writer.write_tensor_data(_encoded(library, part, kind, str(source)))
        writer.close()


def _library() -> Any:
    """Imports the package gguf (MIT licence)."""
    try:
        library = importlib.import_module("gguf")
        importlib.import_module("gguf.quants")
    except ImportError as error:
        raise UserError(f"writing GGUF needs the package gguf: {install('gguf')}") from error
    return library


def _kind(library: Any, part: Part, dtype: str) -> Any:
    """The GGML type of a tensor; in q8_0 files, rows whose length is not a multiple of the block (32) are float16."""
    kinds = library.GGMLQuantizationType
    if part.exact:
        return kinds.F32
    if dtype == "q8_0" and part.shape[-1] % 32:
        return kinds.F16
    return kinds[dtype.upper()]


def _encoded(library: Any, part: Part, kind: Any, where: str) -> np.ndarray:
    value = np.ascontiguousarray(part.make(), np.float32)
    if kind.name == "F16" and not np.abs(value).max() <= _MOST_F16:
        raise UserError(f"{where}: {part.name} has values beyond float16: give --dtype bf16")
    return library.quants.quantize(value, kind)


def _describe(writer: Any, a: Architecture, spec: LlamaCpp, name: str, dtype: str) -> None:
    """Writes `general.*` and the architecture's hyperparameters."""
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(2)
    writer.add_vocab_size(a.vocab_size)
    writer.add_context_length(a.max_seq_len)
    writer.add_embedding_length(a.embed_dim)
    writer.add_block_count(a.num_layers)
    writer.add_feed_forward_length(a.mlp_dim)
    writer.add_head_count(a.num_heads)
    writer.add_head_count_kv(a.num_kv_heads)
    writer.add_key_length(a.head_dim)
    writer.add_value_length(a.head_dim)
    writer.add_layer_norm_rms_eps(a.norm_eps)
    writer.add_rope_dimension_count(a.head_dim)
    writer.add_rope_freq_base(a.rope_theta)
    scaling = a.rope_scaling
    if scaling is not None and scaling.type in ("linear", "yarn"):
        writer.add_string(f"{spec.name}.rope.scaling.type", scaling.type)
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.type == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
            usual = 0.1 * math.log(scaling.factor) + 1.0
            if scaling.attention_factor not in (None, usual):  # llama.cpp multiplies by `usual`
                writer.add_rope_scaling_attn_factors(scaling.attention_factor / usual)
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
    for key, value in spec.keys(canonical(a)).items():
        adders[type(value)](f"{spec.name}.{key}", value)


def _describe_vocabulary(writer: Any, words: Vocabulary, folder: pathlib.Path) -> None:
    """Writes `tokenizer.*`."""
    tokenizer = words.tokenizer
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    pieces, kinds, scores = zip(*words.entries, strict=True)
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    if words.model == "gpt2":
        writer.add_token_merges(words.merges)
    else:
        writer.add_token_scores(scores)
    if words.space_prefix is not None:
        writer.add_add_space_prefix(words.space_prefix)
    # Without this key, llama.cpp uses token 11 as BOS.
    writer.add_bos_token_id(tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    others = [i for i in tokenizer.end_ids if i != tokenizer.eos_id and i < len(pieces)]
    for index, add in zip(others, (writer.add_eot_token_id, writer.add_eom_token_id)):
        add(index)
    if others[2:]:
        spelt = ", ".join(pieces[i] for i in others[2:])
        log.warning("%s: GGUF has no key for these further tokens that end a text: %s", folder, spelt)
    for name, add in (("unk_token", writer.add_unk_token_id), ("pad_token", writer.add_pad_token_id)):
        piece = named_tokens(folder).get(name)
        identity = None if piece is None else tokenizer.token_id(piece)
        if identity is not None and identity < len(pieces):
            add(identity)
    writer.add_add_bos_token(bool(tokenizer.prefix))
    writer.add_add_eos_token(bool(tokenizer.suffix))
    try:
        writer.add_chat_template(tokenizer.chat.template())
    except UserError as error:
        log.warning("%s: no chat template is written (%s)", folder, error)


def _parts(a: Architecture, spec: LlamaCpp, weights: Weights) -> Iterator[Part]:
    """Yields all tensors of the file, in the order of the model folder."""
    if a.rope_scaling is not None and a.rope_scaling.type == "llama3":
        plain = 1.0 / np.float32(a.rope_theta) ** (np.arange(0, a.head_dim, 2, dtype=np.float32) / a.head_dim)
        factors = plain / rope.inverse_frequencies(a)[0]
        yield Part("rope_freqs.weight", factors.shape, lambda: factors, exact=True)
    for group in family_of(a).groups(a):
        for tensor in group:
            yield from _of_tensor(a, spec, weights, tensor)
    for layer in range(a.num_layers if spec.experts else 0):
        shape = (spec.experts, a.embed_dim)
        yield Part(f"blk.{layer}.ffn_gate_inp.weight", shape, lambda shape=shape: np.zeros(shape, np.float32), True)


def _of_tensor(a: Architecture, spec: LlamaCpp, weights: Weights, tensor: Tensor) -> Iterator[Part]:
    own = tensor.path[-1] if tensor.path[-1] != "scale" else tensor.path[-2]
    bias = own.endswith("_bias")
    own = own.removesuffix("_bias")
    name, shape = _NAMES[own], tensor.shape
    turn: Callable[[np.ndarray], np.ndarray] = np.asarray
    if tensor.path[-1] == "scale" and a.norm_unit_offset:
        turn = lambda x: x.astype(np.float32) + 1.0  # noqa: E731
    elif own in ("q", "k") and spec.neighbours:
        heads = a.num_heads if own == "q" else a.num_kv_heads
        turn = lambda x: _neighbours(x, heads)  # noqa: E731
    elif own in ("gate", "up", "down") and spec.experts:
        name, of_experts, turn = f"{name}_exps", a.mlp_dim // spec.experts, _split(own, spec.experts)
        shape = (spec.experts, a.embed_dim, of_experts) if own == "down" else (spec.experts, of_experts, a.embed_dim)
    if tensor.layer is not None:
        name = f"blk.{tensor.layer}.{name}"
    yield Part(
        f"{name}.{'bias' if bias else 'weight'}", shape, lambda: turn(weights.read(tensor)), exact=len(tensor.shape) < 2
    )
    if own == "embedding" and a.tied_embeddings and spec.output == "copied":
        yield Part("output.weight", shape, lambda: weights.read(tensor), exact=False)


def _neighbours(x: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of queries or keys `[H·h, …]` so that each head's channels `i` and `i + h/2` are adjacent."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def _split(own: str, experts: int) -> Callable[[np.ndarray], np.ndarray]:
    """Splits a matrix of the MLP into one per expert; the router weighs each of the E experts by 1/E."""

    def of_inner(x: np.ndarray) -> np.ndarray:
        return x.reshape(experts, -1, x.shape[-1])

    def of_outer(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32).reshape(x.shape[0], experts, -1).swapaxes(0, 1) * experts

    return of_outer if own == "down" else of_inner
