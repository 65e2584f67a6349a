"""Reading of `sentence-transformers` folders: how their modules turn a decoder's states into a vector.

Supported modules are the model, mean or last-token pooling, and normalisation to unit length, which is applied here in
any case. Any other module is refused by name, since the vectors would differ. The library has renamed classes and keys
between its versions; old and new names are read.
"""

import dataclasses
import pathlib
from typing import Any

from kanana_jax.data.tokens import folder as tokenizer_files
from kanana_jax.errors import UserError
from kanana_jax.files import load_json, read_json
from kanana_jax.interop.families.family import Family
from kanana_jax.interop.foreign import Fields, plain, read_object, short
from kanana_jax.models.embedding import Embedding, Pooling

MODULES = "modules.json"
TRANSFORMER, ABOUT = "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLINGS: dict[str, Pooling] = {
    "mean": "mean",
    "pooling_mode_mean_tokens": "mean",
    "lasttoken": "last",
    "pooling_mode_lasttoken": "last",
}
# Prompt names that the library itself looks up, in its order.
_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")
# Arguments of transformers' loaders that do not change the vectors; `model_max_length` is read.
_LOADING = frozenset({"attn_implementation", "dtype", "torch_dtype"})
_READING = frozenset({"model_max_length", "padding_side", "use_fast"})
_ARGUMENTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("config_args", "config_kwargs"), frozenset()),
    **dict.fromkeys(("model_args", "model_kwargs"), _LOADING),
    **dict.fromkeys(("tokenizer_args", "tokenizer_kwargs", "processor_kwargs"), _READING),
}
# Classes without an output matrix name their tensors without the prefix `model.`.
_BARE = tuple((name, f"model.{name}") for name in ("embed_tokens.", "layers.", "norm."))


def read(folder: pathlib.Path, config: dict[str, Any]) -> Embedding | None:
    """How a folder embeds texts; None if it is not a folder of sentence-transformers.

    Args:
      config: contents of its config.json.

    Raises:
      UserError: a file is damaged, or a module, pooling or key that changes the vectors is not supported.
    """
    if not (folder / MODULES).is_file():
        return None
    pooling, counts = _pooling(folder / _modules(folder / MODULES) / "config.json")
    query, document = _prompts(folder / ABOUT)
    return Embedding(
        causal=config.get("is_causal") is not False,
        pooling=pooling,
        instruction=query,
        longest=_longest(folder),
        document=document,
        counts_instruction=counts and bool(query or document),
    )


def as_family(config: dict[str, Any]) -> dict[str, Any]:
    """`config.json` without the keys that `read` handles, and without the name of a class that has no output matrix."""
    classes = config.get("architectures")
    bare = isinstance(classes, list) and all(isinstance(name, str) and name.endswith("Model") for name in classes)
    left = {key: value for key, value in config.items() if key != "is_causal" or value is not False}
    return {key: value for key, value in left.items() if not (bare and key == "architectures")}


def with_bare_names(family: Family) -> Family:
    """The family, extended to find tensors whose names lack the prefix `model.`."""
    return dataclasses.replace(family, aliases=(*family.aliases, *_BARE))


def _modules(file: pathlib.Path) -> str:
    """Checks the list of modules and returns the folder of the pooling module."""
    listed = load_json(file, list)
    names, paths = [], []
    for place, entry in enumerate(listed):
        fields = Fields(entry if isinstance(entry, dict) else {}, f"{file}: module {place}")
        kind, path = fields.given("type"), fields.given("path")
        if not isinstance(kind, str) or not isinstance(path, str):
            raise UserError(f"{fields.where} lacks a type or a path: fetch the file again")
        own = kind.startswith("sentence_transformers.")
        name = kind.rpartition(".")[2]
        if not own or name not in ("Transformer", "Pooling", "Normalize"):
            raise UserError(
                f"{file}: module {plain(name if own else kind)} is not supported (Transformer, Pooling and Normalize "
                "are): its vectors would differ"
            )
        if ".." in pathlib.PurePosixPath(path).parts or path.startswith("/"):
            raise fields.refusal("path", "a folder of the model")
        names.append(name)
        paths.append(path)
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or paths[0]:
        raise UserError(f"{file}: the modules {', '.join(names)} are not supported in this order: fetch the file again")
    return paths[1]


def _pooling(file: pathlib.Path) -> tuple[Pooling, bool]:
    """The kind of pooling, and whether it includes the instruction's tokens."""
    fields = Fields(read_object(file), str(file))
    modes = [key for key, value in fields.values.items() if key.startswith("pooling_mode_") and value is True]
    given = fields.given("pooling_mode")
    modes += [given] if isinstance(given, str) else given if isinstance(given, list) else []
    pooling = _POOLINGS.get(modes[0]) if len(modes) == 1 and isinstance(modes[0], str) else None
    if pooling is None:
        raise UserError(f"{file}: pooling {short(modes)} is not supported: it must be the mean or the last token")
    included = fields.values.get("include_prompt", True)
    if type(included) is not bool:
        raise fields.refusal("include_prompt", "true or false")
    return pooling, included and pooling == "mean"


def _prompts(file: pathlib.Path) -> tuple[str, str]:
    """The prompts of queries and of documents."""
    fields = Fields(read_json(file) or {}, str(file))
    prompts, default = Fields(fields.table("prompts"), f"{file}: prompts"), fields.given("default_prompt_name")
    if fields.given("truncate_dim") is not None:
        raise fields.refusal("truncate_dim", "left out; give --dim")
    other = next((key for key, value in prompts.values.items() if not isinstance(value, str)), None)
    if other is not None:
        raise prompts.refusal(other, "a text")
    if default is not None and default not in prompts.values:
        raise fields.refusal("default_prompt_name", "the name of a prompt, or null")
    query, document = (
        next((prompts.values[name] for name in (*wanted, default) if name in prompts.values), "")
        for wanted in (_QUERY, _DOCUMENT)
    )
    return query, document


def _longest(folder: pathlib.Path) -> int:
    """Maximum number of tokens per text; 0: the model's context length."""
    fields = Fields(read_json(folder / TRANSFORMER) or {}, str(folder / TRANSFORMER))
    if fields.flag("do_lower_case"):
        raise fields.refusal("do_lower_case", "false")
    arguments: dict[str, Any] = {}
    for key, harmless in _ARGUMENTS.items():
        arguments |= fields.table(key)
        if not fields.table(key).keys() <= harmless:
            only = f"left out, or have no keys but {', '.join(sorted(harmless))}" if harmless else "left out"
            raise fields.refusal(key, only)
    task = fields.values.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise fields.refusal("transformer_task", "'feature-extraction'")
    longest = fields.given("max_seq_length")
    if longest is None:
        longest = arguments.get("model_max_length")
    if longest is None:
        longest = tokenizer_files.read_json(folder / tokenizer_files.CONFIG).get("model_max_length")
    most = 1 << 40  # transformers writes 1e30 for 'no limit'
    if longest is None or (isinstance(longest, int | float) and not isinstance(longest, bool) and longest > most):
        return 0
    return Fields({"max_seq_length": longest}, fields.where).integer("max_seq_length", most)
