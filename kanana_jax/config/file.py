"""Config files: plain Python with `get_config(arg)`, by path or by the name of an installed one."""

import contextlib
import importlib
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Generator
from typing import Any

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.files import STORES

CONFIGS = "kanana_jax.configs"


def read_config_file(file_and_arg: str) -> Any:
    """The `ConfigDict` that `get_config(arg)` of `FILE_OR_NAME[:arg]` returns.

    Args:
      file_and_arg: a Python file, or the name of an installed config (`tiny`, `kanana/chain`). A file may import
        installed packages and files from its own folder; the current folder is not searched.

    Raises:
      ConfigError: no such file or name, no `get_config`, or an argument that the config refuses.
    """
    if str(file_and_arg).startswith(tuple(f"{scheme}:/" for scheme in STORES)):
        raise ConfigError(
            f"'{file_and_arg}' is in a bucket: a config is code, and code is run only from local files; copy the "
            "file here, look at it, and name the copy"
        )
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
            f"{path}: {error}: a config may import installed packages and files beside itself (this project's "
            "own configs are installed with it)"
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
    asked = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    before, here = list(sys.path), {"", ".", os.getcwd()} - asked
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
