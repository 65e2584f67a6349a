"""The parts of a tokenizer folder other than its vocabulary: named tokens, end tokens, chat templates.

The names and their order are those of transformers, so that both read the same of one folder.
"""

import json
import pathlib
from typing import Any

from kanana_jax.errors import UserError

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TOKENS = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
GENERATION = "generation_config.json"
# What else travels with a tokenizer; further templates lie in a folder of their own.
COMPANIONS = (CONFIG, TOKENS, "added_tokens.json", TEMPLATE, GENERATION)
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_TEMPLATE_BYTES = 1 << 20


def belongs(name: str) -> bool:
    """Returns whether a file of a model folder is read with its tokenizer."""
    return name in (FILE, "config.json", *COMPANIONS) or (
        name.startswith(f"{MORE_TEMPLATES}/") and name.count("/") == 1
    )


def companions(folder: pathlib.Path) -> dict[str, bytes]:
    """The files that travel with a tokenizer, by name, without its vocabulary."""
    files = [folder / name for name in COMPANIONS]
    files += sorted((folder / MORE_TEMPLATES).glob("*.jinja"))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()}


def named_tokens(folder: pathlib.Path) -> dict[str, str | None]:
    """`bos_token`, `eos_token` … → spelling; None where the folder says that it has no such token."""
    config, others = read_json(folder / CONFIG), read_json(folder / TOKENS)
    found: dict[str, str | None] = {}
    for name in NAMES:
        for said in (config, others):
            value = said.get(name, "")
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and value:
                found[name] = value
                break
            if value is None and name not in found:
                found[name] = None
    return found


def end_ids(folder: pathlib.Path) -> tuple[int, ...]:
    """Every id that ends a text by config.json and generation_config.json, which may each list several.

    Raises:
      UserError: a value that is not an id.
    """
    found: set[int] = set()
    for file in (folder / "config.json", folder / GENERATION):
        value = read_json(file).get("eos_token_id")
        for index in value if isinstance(value, list) else [] if value is None else [value]:
            if type(index) is not int:
                given = json.dumps(value)[:60]
                raise UserError(f"{file}: eos_token_id = {given} is not supported; it must be an id or a list")
            found.add(index)
    return tuple(sorted(found))


def templates(folder: pathlib.Path) -> dict[str, str]:
    """Chat templates by name, the usual one `default`; files come before the config's entry.

    Raises:
      UserError: one that is not text, or larger than any template.
    """
    files = {"default": folder / TEMPLATE}
    files |= {file.stem: file for file in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    found = {name: _text(file.read_bytes(), str(file)) for name, file in files.items() if file.is_file()}
    if found:
        return found
    value, where = read_json(folder / CONFIG).get("chat_template"), f"{folder / CONFIG}: chat_template"
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": _text(value.encode("utf-8", "surrogatepass"), where)}
    entries = value if isinstance(value, list) else [{"name": k, "template": t} for k, t in _items(value)]
    for entry in entries:
        name, text = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise UserError(f"{where} is neither a text nor a list of names and templates: fetch the file again")
        found[name] = _text(text.encode("utf-8", "surrogatepass"), where)
    return found


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else [("", None)]


def _text(data: bytes, where: str) -> str:
    if len(data) > MAX_TEMPLATE_BYTES:
        raise UserError(f"{where} has {len(data):,} bytes, more than any chat template ({MAX_TEMPLATE_BYTES:,})")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text ({error.reason}): fetch it again") from error


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The object in a file, {} where there is none."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({error}): fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} contains no JSON object: fetch it again")
    return value
