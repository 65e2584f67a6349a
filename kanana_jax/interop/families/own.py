"""Our own class, for models that no public class computes: `config.json` holds the architecture itself."""

from typing import Any

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop.families.family import Family, Special
from kanana_jax.interop.families.shape import MOST
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture


class Own(Family):
    """A family that supports every architecture."""

    def lacks(self, a: Architecture) -> list[str]:
        return []

    def from_config(self, config: dict[str, Any], where: str) -> Architecture:
        fields = Fields(config, where)
        values = Fields(fields.table("architecture"), f"{where}: architecture")
        for key, most in MOST.items():
            values.integer(key, most)
        try:
            return Architecture.from_dict(values.values, "architecture")
        except (ConfigError, ValueError) as error:
            raise UserError(f"{where}: {error}") from error

    def to_config(self, a: Architecture, dtype: str, special: Special) -> dict[str, Any]:
        named = {"architectures": [self.class_name], "model_type": self.model_type}
        return {**named, "architecture": a.to_dict(), "torch_dtype": dtype, "dtype": dtype, **special}


def _nothing(*given: Any) -> dict[str, Any]:
    del given
    return {}


FAMILY = Own(
    model_type="kanana_jax",
    class_name="KananaJaxForCausalLM",
    norms={key: key for key in ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")},
    read=_nothing,
    write=_nothing,
    public=False,
)
