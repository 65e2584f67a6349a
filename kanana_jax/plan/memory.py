"""The memory permanently in use on a device, by number of devices: from shapes and shardings, without compiling."""

import dataclasses

from kanana_jax.errors import ConfigError
from kanana_jax.models import counts
from kanana_jax.parallel.chips import GIB
from kanana_jax.plan import topology
from kanana_jax.plan.request import Json, Request, prepared


def resident(wanted: Request, chips: tuple[int, ...]) -> Json:
    """Bytes per device of parameters, optimizer, teacher and batches, by number of chips, all on the fsdp axis.

    Raises:
      ConfigError: no slice of this chip has that size, or it does not divide the stage.
    """
    family, cores = wanted.target.name.rpartition("-")[0], wanted.target.chip.cores
    rows = []
    for count in chips:
        target = topology.named(f"{family}-{count * cores}", wanted.target.slices, wanted.target.chip.dcn_bandwidth)
        changed = dataclasses.replace(wanted, target=target).changed(mesh={"fsdp": -1})
        made = prepared(changed, None if target.chip.torus else topology.stand_ins(target))
        everything = {**made.resident, "batch": made.batch_bytes}
        rows.append(
            {
                "topology": target.name,
                "devices": target.chips,
                "mesh": dict(made.mesh.shape),
                "bytes_per_device": {**everything, "total": sum(everything.values())},
            }
        )
    return {
        "stage": wanted.stage,
        "parameters": counts.parameters(made.model.architecture),
        "hbm_bytes": int(wanted.target.chip.hbm_bytes),
        "rows": rows,
    }


def sizes(text: str) -> tuple[int, ...]:
    """`4,16,64` as numbers.

    Raises:
      ConfigError: something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise ConfigError(f"--memory '{text}' must be numbers of chips, such as 4,16,64,256")
    return found


def text(found: Json) -> str:
    """A line for each number of devices."""
    names = list(found["rows"][0]["bytes_per_device"])
    lines = [
        f"stage '{found['stage']}', {found['parameters']:,} parameters: GiB a device of {found['hbm_bytes'] / GIB:.0f} "
        "permanently in use",
        f"  {'slice':<12}{'devices':>8}  {'mesh':<32}" + "".join(f"{name:>12}" for name in names),
    ]
    for row in found["rows"]:
        mesh = " × ".join(f"{axis} {size}" for axis, size in row["mesh"].items() if size > 1) or "1 device"
        figures = "".join(f"{row['bytes_per_device'][name] / GIB:>12.3f}" for name in names)
        lines.append(f"  {row['topology']:<12}{row['devices']:>8}  {mesh:<32}{figures}")
    return "\n".join(lines)
