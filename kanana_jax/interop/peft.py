"""Low-rank adapters in the format of the `peft` library: `adapter_config.json` and `adapter_model.safetensors`.

Layout (peft 0.21, `LoraConfig` and `get_peft_model_state_dict`): each adapted `nn.Linear` has `A [r, in]` and
`B [out, r]` under the module's name in the transformers class, and computes W + (α/r)·B·A. Folders written here also
hold the base's fingerprint, so that an adapter is never applied to another base of the same shape.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import place, whole, write_json
from kanana_jax.interop import families, model_folder, safetensors
from kanana_jax.interop.card import Card, card
from kanana_jax.interop.families.names import Tensor
from kanana_jax.interop.foreign import Fields, plain, read_object, short
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models import lora
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.linear import ADAPTERS
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

CONFIG, WEIGHTS, ABOUT = "adapter_config.json", "adapter_model.safetensors", "base.json"
_PREFIX = "base_model.model."
_FACTORS = {"a": "lora_A", "b": "lora_B"}
# Keys that turn an adapter into something other than W + scale·B·A, each with the values that do not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    **dict.fromkeys(("use_dora", "lora_bias", "fan_in_fan_out", "use_qalora"), (False,)),
    **dict.fromkeys(("modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform"), ({}, [])),
    **dict.fromkeys(("layer_replication", "trainable_token_indices", "megatron_config", "target_parameters"), ({}, [])),
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Adapters that have been checked against a base.

    Attributes:
      config: rank, scale and target modules.
      params: the factors as NumPy arrays, in the tree of `models/lora.py`.
    """

    config: LoraConfig
    params: Params


def is_adapter(folder: pathlib.Path) -> bool:
    """Whether a folder holds an adapter of the `peft` library."""
    return (folder / CONFIG).is_file()


def _modules(a: Architecture, targets: Sequence[str]) -> Iterator[tuple[Tensor, str]]:
    """Yields every weight that may have an adapter, with the name of its module in the transformers class."""
    family = families.family_of(a)
    for layer in range(a.num_layers):
        for tensor in family.layer_tensors(a, layer):
            if tensor.path[-1] in targets:
                yield tensor, tensor.name.removesuffix(".weight")


def write(folder: pathlib.Path, config: LoraConfig, adapters: Params, base: ModelFolder) -> None:
    """Writes the trained adapters of a base, completely or not at all.

    Args:
      adapters: the factors as NumPy arrays, in the tree of `models/lora.py`.
    """
    flat, tensors, modules = traverse_util.flatten_dict(adapters), {}, set()
    for tensor, module in _modules(base.architecture, config.targets):
        modules.add(module.rsplit(".", 1)[1])
        a, b = (np.asarray(flat[*tensor.path, factor][tensor.layer]) for factor in _FACTORS)
        made = {"a": a.reshape(-1, config.rank).T, "b": b.reshape(config.rank, -1).T}
        tensors |= {f"{_PREFIX}{module}.{_FACTORS[key]}.weight": np.ascontiguousarray(x) for key, x in made.items()}
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.path.resolve()),
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    with whole(folder, (CONFIG,)) as partial:
        safetensors.save(partial / WEIGHTS, tensors)
        write_json(partial / ABOUT, {"fingerprint": model_folder.fingerprint(base)})
        write_json(partial / CONFIG, about)


def export(
    stage: pathlib.Path, destination: pathlib.Path, base_name: str = "", readme: str = ""
) -> tuple[float, float]:
    """Exports the adapters of a finished stage, with its tokenizer, for the `peft` library.

    Args:
      base_name: name of the base that the folder records, under which others find it; default: its local path.
      readme: text of the model card (`model_card.text`).

    Returns:
      The comparison with the merged model, see `differences`.

    Raises:
      UserError: the stage trained no adapters, or transformers has no class for its base.
      ConfigError: `destination` exists and is not empty.
    """
    source, merged = stage / "adapter", model_folder.find(stage)
    if not is_adapter(source):
        raise UserError(f"{stage} has no adapter: only a stage with a section 'lora' leaves one")
    if destination.exists() and any(destination.iterdir()):
        raise ConfigError(f"{destination} exists and is not empty: name another folder")
    families.export_family(merged.architecture, name="")  # refuses a model that no class computes
    about = read_object(source / CONFIG)
    base = model_folder.find(about["base_model_name_or_path"])
    found = differences(base, read(source, base), merged)
    with whole(destination, (CONFIG,)) as partial:
        for name in (WEIGHTS, ABOUT):
            (partial / name).write_bytes((source / name).read_bytes())
        model_folder.copy_tokenizer(merged.path, partial)
        write_json(partial / CONFIG, about | ({"base_model_name_or_path": base_name} if base_name else {}))
        if readme:
            (partial / "README.md").write_text(readme, encoding="utf-8")
    return found


def read(folder: pathlib.Path, base: ModelFolder) -> Adapter:
    """Reads the adapters in a folder of the `peft` library.

    Raises:
      UserError: the adapter is of another kind or for another base, or a file is damaged.
    """
    file = folder / CONFIG
    fields = Fields(read_object(file), str(file))
    if fields.given("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type is {short(fields.given('peft_type'))}: only LORA adapters can be read")
    for key, allowed in _PLAIN.items():
        value = fields.given(key)
        if value is not None and value not in allowed:
            raise UserError(f"{file}: '{key}' is {short(value)}: only plain low-rank adapters can be read")
    _check_base(folder, fields, base)
    rank = fields.integer("r", 1 << 16)
    scale = fields.number("lora_alpha", above=True) / (math.sqrt(rank) if fields.given("use_rslora") else rank)
    return _read(folder, rank, scale, base)


def _check_base(folder: pathlib.Path, fields: Fields, base: ModelFolder) -> None:
    """Refuses an adapter of another base, identified by a fingerprint (the noted one, or that of the folder that the
    adapter names), or by its name if there is none."""
    noted, name = folder / ABOUT, fields.given("base_model_name_or_path")
    other = f"{folder} is an adapter of {plain(str(name))}, and {base.path} holds other weights: name its base"
    if noted.is_file():
        if read_object(noted).get("fingerprint") != model_folder.fingerprint(base):
            raise UserError(other)
        return
    if not isinstance(name, str) or not name:
        return
    same = {place(name).resolve(), place(name).resolve() / "model"} if "://" not in name else set()
    if base.path.resolve() in same:
        return
    if (named := _model_at(name)) is not None:  # every stage's folder is called 'model'
        if model_folder.fingerprint(named) != model_folder.fingerprint(base):
            raise UserError(other)
    elif pathlib.PurePath(name).name.casefold() != base.path.name.casefold():
        raise UserError(
            f"{folder} is an adapter of {plain(name)}, not of {base.path}: name its base, or correct "
            f"'base_model_name_or_path' in {CONFIG} if that is the same model"
        )


def _model_at(name: str) -> ModelFolder | None:
    """The model of a folder on this machine; None: there is none."""
    try:
        return model_folder.find(name) if "://" not in name and place(name).is_dir() else None
    except UserError:
        return None


def _read(folder: pathlib.Path, rank: int, scale: float, base: ModelFolder) -> Adapter:
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}: fetch it again (pickled weights are never loaded)")
    reader = safetensors.Reader(folder, WEIGHTS)
    left, targets = set(reader.entries), []
    stacked: dict[tuple[str, ...], list[np.ndarray]] = {}
    for tensor, module in _modules(base.architecture, lora.ALL):
        names = {key: f"{_PREFIX}{module}.{factor}.weight" for key, factor in _FACTORS.items()}
        if tensor.path[-1] not in targets:
            if not left & set(names.values()):
                continue
            if tensor.layer:
                raise UserError(f"{folder} adapts {plain(module)} and not that of earlier layers: adapt all of them")
            targets.append(tensor.path[-1])
        outputs, inputs = tensor.shape
        for key, shape in (("a", (rank, inputs)), ("b", (outputs, rank))):
            entry = reader.entries.get(names[key])
            if entry is None:
                raise UserError(f"{folder / WEIGHTS} lacks {names[key]}, which {base.path} has a place for")
            if entry.shape != shape or entry.dtype not in safetensors.DTYPES:
                raise UserError(
                    f"{folder / WEIGHTS}: {names[key]} is {entry.dtype} of shape {entry.shape}, for {base.path} it "
                    f"must be float of shape {shape}: it is an adapter of another base"
                )
            left.discard(names[key])
            stacked.setdefault((*tensor.path, key), []).append(_finite(reader, names[key]).T)
    if left:
        raise UserError(f"{folder / WEIGHTS} holds {plain(min(left))}, for which {base.path} has no place")
    config = LoraConfig(rank, scale * rank, tuple(name for name in lora.ALL if name in targets))
    shapes = lora.shapes(config, base.architecture)
    params = {path: np.stack(layers).reshape(shapes[path]) for path, layers in stacked.items()}
    return Adapter(config, traverse_util.unflatten_dict(params))


def _finite(reader: safetensors.Reader, name: str) -> np.ndarray:
    """Reads a factor as float32, and refuses values that are not finite."""
    value = reader.read(name).astype(np.float32)
    if not np.isfinite(value).all():
        raise UserError(f"{reader.folder / WEIGHTS}: {name} holds NaN or infinite values: fetch it again")
    return value


def merge_into(base: ModelFolder, adapter: Adapter, destination: pathlib.Path, made: Card) -> None:
    """Writes the base with its adapters merged in float32 and stored in the base's dtype, layer by layer.

    Args:
      made: contents of the new folder's `model.json`.

    Raises:
      UserError: the base lacks a tensor or is truncated, or the disk is full.
    """
    weights = model_folder.open_weights(base)
    flat = traverse_util.flatten_dict(adapter.params["blocks"])

    def layer(i: int) -> Params:
        found = traverse_util.flatten_dict(weights.layer(i))
        for path in {path[:-1] for path in flat}:
            a, b = (flat[*path, factor][i] for factor in _FACTORS)
            product = a.reshape(-1, adapter.config.rank) @ b.reshape(adapter.config.rank, -1)
            weight = found[path].astype(np.float32)
            found[path] = weight + np.float32(adapter.config.scale) * product.reshape(weight.shape)
        return traverse_util.unflatten_dict(found)

    model_folder.write_layers(destination, base.architecture, weights.outer, layer, made, weights)


def merge_folder(source: pathlib.Path, destination: pathlib.Path, base_name: str = "") -> tuple[float, float]:
    """Merges the adapter in a folder into its base, as a new model folder.

    Args:
      base_name: a model, stage or Hugging Face folder; empty: the base that the adapter names.

    Returns:
      The comparison with the merged model, see `differences`.

    Raises:
      UserError: see `read`; or the base is not on this machine.
      ConfigError: `destination` exists and is not empty.
    """
    if destination.exists() and any(destination.iterdir()):
        raise ConfigError(f"{destination} exists and is not empty: name another folder")
    named = base_name or read_object(source / CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not place(named).exists():
        raise UserError(f"{source} is an adapter of {short(named)}, which is not here: name the base with --base")
    base = model_folder.find(named)
    adapter = read(source, base)
    noted = base.card.get("tokenizer")
    merge_into(base, adapter, destination, card(base.architecture, parent=str(base.path.resolve()), tokenizer=noted))
    return differences(base, adapter, model_folder.find(destination))


def differences(base: ModelFolder, adapter: Adapter, merged: ModelFolder) -> tuple[float, float]:
    """Compares the logits of a merged folder with those of the base and its adapters.

    Both run in float32 on 64 random tokens; the merged weights are those stored in the folder, rounded to its dtype.

    Returns:
      The largest absolute difference of a logit, and the largest absolute logit.
    """
    mesh, model = make_mesh(MeshConfig(), jax.devices()[:1]), Model(base.architecture, Runtime())
    tokens = np.random.default_rng(0).integers(0, base.architecture.vocab_size, (2, 32)).astype(np.int32)

    @jax.jit
    def logits(params: Params) -> jax.Array:
        module = model.bind({key: value for key, value in params.items() if key != ADAPTERS})
        return module.unembed(module(jnp.asarray(tokens), adapters=params.get(ADAPTERS)))

    with jax.set_mesh(mesh):
        own = model_folder.load_params(base, Runtime(), mesh)
        beside = np.asarray(logits(lora.adapted(adapter.config, own, jax.tree.map(jnp.asarray, adapter.params))))
        del own
        within = np.asarray(logits(model_folder.load_params(merged, Runtime(), mesh)))
    return float(np.abs(beside - within).max()), float(np.abs(beside).max())
