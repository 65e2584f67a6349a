"""From an `ml_collections` config to frozen dataclasses, with one clear sentence for each mistake.

A config file is plain Python with `get_config(arg)` that returns a `ConfigDict`. Below the command
line nothing reads a `ConfigDict`: `build` turns each section into the frozen dataclass of the part
that owns it, and names the key, the nearest right key or the type that was wanted.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import os
import pathlib
import sys
import types
import typing
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

from kanana_jax.errors import ConfigError, nearest

CONFIGS = "kanana_jax.configs"
Section = TypeVar("Section")


def build(cls: type[Section], values: Mapping[str, Any] | None, path: str) -> Section:
    """Builds the frozen dataclass `cls` from a mapping (a dict or a `ConfigDict`).

    Nested dataclasses, tuples, optional values and `dict[str, T]` are built likewise; an int is
    taken for a float, nothing else is converted. A `__post_init__` may raise `ConfigError` or
    `ValueError` for values that do not fit together.

    Args:
      cls: a dataclass.
      values: the section of the config.
      path: the section's key, for messages (`stage1.optimizer`).

    Raises:
      ConfigError: unknown or missing key, wrong type, or values that the class refuses.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise ConfigError(f"config '{path}' must be a section of keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in fields_of(cls) if f.init}
    given = dict(values.items())
    for key in given:
        if key not in fields:
            raise ConfigError(f"unknown config key '{_join(path, key)}': {nearest(key, list(fields))}")
    built = {}
    for name, field in fields.items():
        if name in given:
            built[name] = _convert(hints[name], given[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"config key '{_join(path, name)}' is missing: set it to a {_name(hints[name])}")
    try:
        return cls(**built)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"config '{path}': {error}") from error


def fields_of(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a dataclass that is only known as a type."""
    assert dataclasses.is_dataclass(cls), cls
    return dataclasses.fields(cls)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        choices = [a for a in args if a is not type(None)]
        for choice in choices[:-1]:
            try:
                return _convert(choice, value, path)
            except ConfigError:
                continue
        return _convert(choices[-1], value, path)
    if origin is typing.Literal:
        if value in args:
            return value
        raise ConfigError(f"config '{path}' is {value!r}; it must be {_name(hint)}")
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)
    if origin in (tuple, list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"config '{path}' must be a list, not {value!r}")
        if origin is tuple and len(args) > 1 and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise ConfigError(f"config '{path}' must have {len(args)} values, not {len(value)}")
            return tuple(_convert(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(args, value)))
        return tuple(_convert(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping):
        if not hasattr(value, "items"):
            raise ConfigError(f"config '{path}' must be a section of keys, not {value!r}")
        return {k: _convert(args[1], v, _join(path, k)) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrongly_bool = hint in (int, float) and isinstance(value, bool)
    if isinstance(hint, type) and isinstance(value, hint) and not wrongly_bool:
        return value
    raise ConfigError(f"config '{path}' must be of type {_name(hint)}, not {type(value).__name__} ({value!r})")


def read_config_file(file_and_arg: str) -> Any:
    """The `ConfigDict` that `get_config(arg)` of `FILE_OR_NAME[:arg]` returns.

    Args:
      file_and_arg: a Python file, or the name of an installed config (`tiny`, `kanana/chain`). A file may import
        installed packages and files beside itself; the current folder is not searched.

    Raises:
      ConfigError: no such file or name, no `get_config`, or an argument that the config refuses.
    """
    file, _, arg = str(file_and_arg).partition(":")
    path = pathlib.Path(file)
    is_file = path.suffix == ".py" and path.is_file()
    with _importing_beside(path.parent if is_file else None):
        module = _run_file(path) if is_file else _installed(file)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"config file '{file}' has no function get_config()")
        try:
            config = module.get_config(arg) if arg else module.get_config()
        except (TypeError, ValueError, KeyError, ImportError, AttributeError, NameError) as error:
            raise ConfigError(f"{file}: get_config({arg!r}) failed: {error}") from error
    if not hasattr(config, "items"):
        raise ConfigError(f"{file}: get_config() must return a ConfigDict, not {type(config).__name__}")
    return config


def _run_file(path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("kanana_jax_config", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"config file '{path}' is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.msg}") from error
    except (TypeError, ValueError, KeyError, AttributeError, NameError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ImportError as error:
        raise ConfigError(
            f"{path}: {error}: a config may import installed packages and files beside itself (to install this "
            "project's own configs: pip install -e .)"
        ) from error
    return module


def _installed(name: str) -> types.ModuleType:
    """The module of an installed config."""
    try:
        folder = pathlib.Path(importlib.import_module(CONFIGS).__path__[0])
    except ImportError:
        folder = None
    known = [] if folder is None else sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.py"))
    known = [name for name in known if not name.endswith(("__init__", "common"))]
    if name not in known:
        near = nearest(name, known) if known else "none is installed"
        raise ConfigError(
            f"config file '{name}' does not exist: give a Python file with get_config(), or the name of an installed "
            f"config ({near})"
        )
    return importlib.import_module(f"{CONFIGS}.{name.replace('/', '.')}")


@contextlib.contextmanager
def _importing_beside(folder: pathlib.Path | None) -> Generator[None]:
    """Imports look among installed packages, then in `folder`, not in the current one; siblings are unloaded again.

    Installed packages come first: a file `jax.py` beside a config is not what the libraries themselves mean by it.
    """
    told = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    before, here = list(sys.path), {"", ".", os.getcwd()} - told
    beside = [] if folder is None else [str(folder.resolve())]
    sys.path[:] = [*(entry for entry in before if entry not in here), *beside]
    loaded = set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - loaded:
            file = getattr(sys.modules[name], "__file__", None)
            if "." not in name and file and str(pathlib.Path(file).parent) in beside:
                del sys.modules[name]


def override(config: Any, assignments: Sequence[str]) -> None:
    """Applies `a.b=value` assignments to a `ConfigDict` in place; types follow the old value.

    Raises:
      ConfigError: malformed assignment, unknown key, or a value of another type.
    """
    import ast

    from ml_collections import ConfigDict

    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override '--config.{assignment}' needs a value: --config.{key}=VALUE")
        *parents, leaf = key.split(".")
        section, seen = config, ""
        for name in [*parents, leaf]:
            if not isinstance(section, ConfigDict) or name not in section:
                known = list(section.keys()) if isinstance(section, ConfigDict) else []
                raise ConfigError(f"unknown config key '{_join(seen, name)}': {nearest(name, known)}")
            seen = _join(seen, name)
            if seen != key:
                section = section[name]
        old = section[leaf]
        if isinstance(old, str):
            value = text
        else:
            try:
                value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
            except (ValueError, SyntaxError):
                value = text
        if isinstance(old, ConfigDict):
            raise ConfigError(f"config '{key}' is a section: name one of its keys ({', '.join(old.keys())})")
        if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(old, (tuple, list)) and not isinstance(value, (tuple, list)):
            value = (value,)
        if old is not None and value is not None and type(value) is not type(old):
            if not isinstance(old, (tuple, list)):
                raise ConfigError(f"config '{key}' must be of type {type(old).__name__}, not {text!r}")
            value = type(old)(value)
        with section.ignore_type():
            section[leaf] = value


def to_dict(config: Any) -> dict[str, Any]:
    """A `ConfigDict` or dataclass as plain, JSON-safe Python."""
    if dataclasses.is_dataclass(config):
        config = dataclasses.asdict(config)
    elif hasattr(config, "to_dict"):
        config = config.to_dict()
    return json.loads(json.dumps(config, ensure_ascii=False))


def fingerprint(config: Any) -> str:
    """A short stable hash of any JSON-safe value or config."""
    text = json.dumps(to_dict(config), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
