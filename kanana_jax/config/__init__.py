"""From an `ml_collections` config to frozen dataclasses.

A config file is plain Python with `get_config(arg)`, which returns a `ConfigDict`. Only the command line handles
a `ConfigDict`: `build` turns each section into the frozen dataclass of the part that owns it; its errors name the key
and the nearest valid key or the expected type. `override` sets any key that these dataclasses have.
"""

from kanana_jax.config.file import CONFIGS, read_config_file
from kanana_jax.config.overrides import Schema, override, schema_of
from kanana_jax.config.sections import build, fields_of, fingerprint, mistakes, to_dict

__all__ = [
    "CONFIGS",
    "Schema",
    "build",
    "fields_of",
    "fingerprint",
    "mistakes",
    "override",
    "read_config_file",
    "schema_of",
    "to_dict",
]
