"""Grammars of turns that may call functions, and checks of the JSON schemas that they can guarantee.

Grammars use llguidance's dialect of Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md). JSON has
the separators that chat templates write and no other whitespace, so that a model cannot emit whitespace without end.
Objects that list their properties allow no others, unless the schema says so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kanana_jax.data.tokens import calls
from kanana_jax.errors import ConfigError, UserError, install

MOST_CALLS = 16  # per turn
MOST_DEEP = 32  # levels of nesting in a schema
# Keywords of JSON Schema that restrict a value and that llguidance does not enforce, or enforces only in part.
REFUSED = (
    *("not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"),
    *("$dynamicRef", "$recursiveRef", "patternProperties", "$id", "$anchor", "additionalItems"),
)
_MAPS, _LISTS = ("properties", "$defs", "definitions"), ("anyOf", "oneOf", "allOf", "prefixItems")
# Keywords that cannot be enforced in Qwen's XML: on the object of all parameters, because each parameter is written
# separately there, and on strings, because they are written without quotes.
_OF_ALL = ("$ref", "anyOf", "oneOf", "allOf", "minProperties", "maxProperties", "enum", "const")
_OF_TEXT = ("$ref", "anyOf", "oneOf", "allOf", "pattern", "format", "minLength", "maxLength")
_ONE = ("items", "additionalProperties")
_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_TEXT = r"/(.|\n)*/"


def grammar(
    form: calls.Name, schemas: Mapping[str, calls.Schema], symbols: Sequence[str], *, required: bool, parallel: bool
) -> str:
    """The grammar of a turn.

    Args:
      form: format of calls in the model's chat template.
      schemas: JSON schema of the parameters, by name of the function.
      symbols: the marks of calls that are single tokens of the vocabulary (`constrained.Vocabulary.symbols`).
      required: whether the turn must be a call; otherwise it may be text, or text before calls.
      parallel: whether several calls may follow one another.

    Raises:
      UserError: a schema has a keyword that cannot be guaranteed; the message names it.
      ConfigError: the extra `calls` is not installed.
    """
    rules = [rule for i, (name, schema) in enumerate(schemas.items()) for rule in _function(form, i, name, schema)]
    one = "(" + " | ".join(f"call_{i}" for i in range(len(schemas))) + ")"
    more = MOST_CALLS - 1 if parallel else 0
    if form == "llama3":
        tag = f"{calls.PYTHON_TAG}? " if calls.PYTHON_TAG in symbols else ""
        called = f'{tag}{one} ("; " {one}){{0,{more}}}' if more else f"{tag}{one}"
        # Text may not begin like a call, since it would be parsed as one.
        head = [f"start: {called}"] if required else [f"start: said | {called}", r"said: /(\s*[^{\s](.|\n)*)?/"]
        return "\n".join(["%llguidance {}", *head, *rules])
    begin, end = (mark if mark in symbols else json.dumps(mark) for mark in (calls.OPEN, calls.CLOSE))
    body = f'"\\n" {one} "\\n" {end}'
    again = f' ("\\n" {begin} {body}){{0,{more}}}' if more else ""
    if required:
        return "\n".join(["%llguidance {}", f"start: {begin} {body}{again}", *rules])
    opened = f"opened: TEXT {begin}" if calls.OPEN in symbols else f"opened[lazy]: TEXT {begin}"
    return "\n".join(["%llguidance {}", f"start: TEXT | opened {body}{again}", opened, f"TEXT: {_TEXT}", *rules])


def _function(form: calls.Name, number: int, name: str, schema: calls.Schema) -> Iterator[str]:
    """The grammar rules of a call of one function, with `call_<number>` first."""
    closed = checked(name, schema)
    if form == "qwen-xml":
        yield from _xml(number, name, closed)
        return
    key = "parameters" if form == "llama3" else "arguments"
    head = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{key}": '
    yield f'call_{number}: {_literal(head)} args_{number} "}}"'
    yield f"args_{number}: {_json(closed)}"


def _xml(number: int, name: str, schema: dict[str, Any]) -> Iterator[str]:
    _checked_for_xml(name, schema)
    parts, rules = [], []
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for i, (key, part) in enumerate(schema.get("properties", {}).items()):
        value = f"value_{number}_{i}"
        parts.append(value if key in schema.get("required", ()) else f"{value}?")
        begin = _literal(f"<parameter={key}>\n")
        if not calls.is_text(part):
            rules.append(f'{value}: {begin} {value}_json "\\n</parameter>\\n"')
            rules.append(f"{value}_json: {_json({**shared, **part} if isinstance(part, dict) else part)}")
        elif "enum" in part or "const" in part:
            texts = part["enum"] if "enum" in part else [part["const"]]
            rules.append(f'{value}: {begin} ({" | ".join(map(_literal, texts))}) "\\n</parameter>\\n"')
        else:
            rules.append(f"{value}: {begin} {value}_text")
            rules.append(f'{value}_text[suffix="\\n</parameter>\\n"]: {_TEXT}')
    head = _literal(f"<function={name}>\n")
    yield f'call_{number}: {head} {" ".join(parts)} "</function>"'
    yield from rules


def _checked_for_xml(name: str, schema: dict[str, Any]) -> None:
    """Raises UserError, naming the keyword, if a schema cannot be guaranteed in Qwen's XML."""
    properties = schema.get("properties", {})
    for keyword in _OF_ALL:
        if keyword in schema:
            raise _refused(name, keyword, "of all parameters, in XML")
    for key in schema.get("required", ()):
        if key not in properties:
            raise _refused(name, "required", f"'{key[:50]}', which is not among the properties")
    for reference in _references(schema):
        if not reference.startswith(("#/$defs/", "#/definitions/")):
            raise _refused(name, "$ref", f"'{reference[:50]}', in XML")
    for key, part in properties.items():
        if not key or any(letter in key for letter in "<>\n"):
            raise UserError(f"function '{name}': the parameter {key[:50]!r} cannot be written in XML: rename it")
        if calls.is_text(part):
            for keyword in _OF_TEXT:
                if keyword in part:
                    raise _refused(name, keyword, f"properties/{key}, a text in XML")
            texts = part.get("enum", [part.get("const", "")])
            if any("</parameter>" in text for text in texts):
                raise _refused(name, "enum", f"properties/{key}, a text that ends itself in XML")


def _literal(text: str) -> str:
    return json.dumps(text) if text else '""'


def _json(schema: Any) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": _FORM} if isinstance(schema, dict) else schema)


def checked(name: str, schema: calls.Schema) -> dict[str, Any]:
    """A function's parameter schema, with its objects closed to properties that they do not list.

    Args:
      name: name of the function, for messages.

    Raises:
      UserError: the schema is not an object's, has a keyword that cannot be guaranteed, or allows only infinite values.
      ConfigError: the extra `calls` is not installed.
    """
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise ConfigError(f"function calls need llguidance: {install('calls')}") from error
    root = {"type": "object", **schema}
    if root["type"] != "object":
        raise UserError(f"function '{name}': its parameters must be of type 'object', not {str(root['type'])[:50]}")
    # Closed parts of an `allOf` would exclude each other's properties.
    closed = _closed(root, name, "", 0, '"allOf"' not in json.dumps(root))
    if not _finite(closed):
        raise _refused(name, "$ref", "a value that contains itself endlessly")
    failed, told = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(f"start: {_json(closed)}"))
    if failed:
        reason = told[0].partition("failed to compile JSON schema: ")[2] or told[0]
        raise UserError(f"function '{name}': its schema cannot be guaranteed ({' '.join(reason.split())[:150]})")
    return closed


def _refused(name: str, keyword: str, where: str) -> UserError:
    return UserError(
        f"function '{name}': '{keyword}' ({where or 'parameters'}) cannot be guaranteed while a call is written: "
        "leave it out of the schema, and check the arguments afterwards"
    )


def _closed(schema: Any, name: str, where: str, deep: int, closes: bool) -> Any:
    """A schema without annotations; with `closes`, objects that list properties also exclude all others."""
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping):
        raise UserError(f"function '{name}': {where or 'parameters'} is not a JSON schema")
    if deep > MOST_DEEP:
        raise UserError(f"function '{name}': its schema is nested more than {MOST_DEEP} levels deep")
    for keyword in REFUSED:
        if keyword in schema and not (keyword == "uniqueItems" and schema[keyword] is False):
            raise _refused(name, keyword, where)
    kept = {key: value for key, value in schema.items() if key not in ("x-guidance", "uniqueItems", *_NOTES)}
    required = kept.get("required", [])
    if not isinstance(required, list) or not all(isinstance(key, str) for key in required):
        raise UserError(f"function '{name}': {f'{where}/required'.lstrip('/')} must be a list of names")
    for key in (*_MAPS, *_LISTS, *_ONE):
        if key in kept:
            alone = closes and not (key in _LISTS and "properties" in kept)
            kept[key] = _inner(kept[key], key, name, f"{where}/{key}".lstrip("/"), deep + 1, alone)
    if kept.get("nullable") is True and isinstance(kept.get("type"), str):  # OpenAPI 3.0
        kept["type"] = [kept["type"], "null"]
    joined = any(key in kept for key in ("$ref", "anyOf", "oneOf", "allOf"))
    if closes and "properties" in kept and "additionalProperties" not in kept and not joined:
        kept["additionalProperties"] = False
    return kept


# Annotations: they restrict nothing, and may be large.
_NOTES = ("description", "title", "default", "examples", "$comment", "$schema", "deprecated", "readOnly", "writeOnly")


def _inner(value: Any, key: str, name: str, where: str, deep: int, closes: bool) -> Any:
    if key in _ONE:
        if isinstance(value, list):  # draft 4's tuples
            raise _refused(name, key, f"a list, at {where}")
        return _closed(value, name, where, deep, closes)
    if key in _MAPS:
        if not isinstance(value, Mapping):
            raise UserError(f"function '{name}': {where} must be an object")
        return {inner: _closed(part, name, f"{where}/{inner}", deep, closes) for inner, part in value.items()}
    if not isinstance(value, list):
        raise UserError(f"function '{name}': {where} must be a list")
    return [_closed(part, name, f"{where}/{i}", deep, closes) for i, part in enumerate(value)]


def _finite(root: Mapping[str, Any]) -> bool:
    """Whether a schema has a value of finite size, as far as references decide that, found as a least fixed point."""
    left, known = set(_references(root)), set()
    while found := {ref for ref in left if _ends(_target(root, ref), known)}:
        left, known = left - found, known | found
    return _ends(root, known)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _ends(schema: Any, known: set[str]) -> bool:
    """Whether a schema has a finite value, given that the schemas referenced in `known` have one."""
    if not isinstance(schema, Mapping):
        return True  # llguidance itself refuses a reference to nothing, and names it
    if isinstance(schema.get("$ref"), str) and schema["$ref"] not in known:
        return False
    for key in ("anyOf", "oneOf"):
        if schema.get(key) and not any(_ends(part, known) for part in schema[key]):
            return False
    if not all(_ends(part, known) for part in schema.get("allOf", ())):
        return False
    if schema.get("minItems", 0) and not _ends(schema.get("items"), known):
        return False
    properties = schema.get("properties", {})
    return all(_ends(properties.get(key), known) for key in schema.get("required", ()))


def _target(root: Mapping[str, Any], reference: str) -> Any:
    """The part of a schema that a reference names; None if there is none, or if it is in another document."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for part in [part for part in reference[1:].split("/") if part]:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
