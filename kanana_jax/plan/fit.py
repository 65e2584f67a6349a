"""Whether a stage fits the memory of its devices, by estimate, and the changes of its config that make it fit.

Nothing is compiled and no chip's compiler is needed: parameters, masters, moments and gradients follow from shapes and
axis names, activations from the program before it is compiled (`estimate.py`). CPU devices replace chips that are
not here. `kanana plan --memory` asks for a slice, `kanana run --dry-run` for this machine's devices.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax

from kanana_jax.errors import ConfigError
from kanana_jax.models import counts
from kanana_jax.parallel.chips import GIB
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.plan import topology
from kanana_jax.plan.estimate import estimate
from kanana_jax.plan.request import Asked, Json, Request, accumulations, prepared_on
from kanana_jax.recipe.context import shapes
from kanana_jax.stages import KINDS

# A GPU's driver, libraries and fragments take some; JAX itself takes three quarters unless configured otherwise
# (docs.jax.dev, "GPU memory allocation").
_GPU_SHARE, _JAX_SHARE = 0.92, 0.75
_MOMENTS = ("bfloat16", "int8", "factored")


def fit(wanted: Request) -> Json:
    """Bytes per device by purpose, and the remedies, each with its resulting memory.

    Raises:
      ConfigError: a mesh that does not divide the model or the batch.
    """
    chip = wanted.target.chip
    limit = int(chip.hbm_bytes * (1.0 if chip.torus else _GPU_SHARE))
    devices = topology.stand_ins(wanted.target)
    parts = needs(wanted, devices)
    total = sum(parts.values())
    made = prepared_on(_plain(wanted), devices)
    return {
        "stage": wanted.stage,
        "topology": wanted.target.name,
        "devices": wanted.target.chips,
        "mesh": dict(made.mesh.shape),
        "parameters": counts.parameters(made.model.architecture),
        "hbm_bytes": int(chip.hbm_bytes),
        "limit": limit,
        "bytes_per_device": {**parts, "total": total},
        "fits": total <= limit,
        "needs_fraction": not chip.torus and total > _JAX_SHARE * chip.hbm_bytes,
        "remedies": remedies(wanted, devices, parts, limit) if total > 0.5 * limit else [],
    }


def needs(wanted: Asked, devices: Sequence[jax.Device]) -> dict[str, int]:
    """Bytes per device by purpose (`estimate.estimate`).

    Raises:
      ConfigError: a mesh that does not divide the model or the batch.
    """
    stage = wanted.stages[wanted.stage]
    programs = KINDS[stage.kind].programs
    assert programs is not None  # other stages are refused
    known = shapes(_plain(wanted).recipe, wanted.stages, make_mesh(wanted.recipe.mesh, list(devices)))
    return estimate(lambda others: programs(wanted.stage, stage, others), known)


def remedies(wanted: Asked, devices: Sequence[jax.Device], before: dict[str, int], limit: int) -> list[Json]:
    """Changes that need less memory than `before`, each with its memory and whether it fits, the cheapest first."""
    rows = _remedies(wanted, devices, before)
    return [{"change": words, "total": size, "fits": size <= limit} for words, size in rows]


def shown(found: Sequence[Json]) -> tuple[list[Json], bool]:
    """The remedies to show, and whether they fit: those that do, or else the three nearest."""
    fitting = [row for row in found if row["fits"]]
    return (fitting[:8], True) if fitting else (sorted(found, key=lambda row: row["total"])[:3], False)


def _plain(wanted: Asked) -> Asked:
    """The same with XLA's attention: a chip's kernel cannot be traced without it, and keeps no more."""
    runtime = dataclasses.replace(wanted.recipe.runtime, attention="xla")
    return dataclasses.replace(wanted, recipe=dataclasses.replace(wanted.recipe, runtime=runtime))


def _remedies(wanted: Asked, devices: Sequence[jax.Device], before: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Changes that need less memory and what each comes to, alone and together, the cheapest in time first."""
    mesh = prepared_on(_plain(wanted), devices).mesh.shape
    most = max(accumulations(wanted, mesh["data"] * mesh["fsdp"]), default=1)
    train, remat = f"--config.{wanted.stage}.train", "--config.runtime.remat=full"
    batches: list[tuple[str, Asked]] = [("", wanted)]
    if most > wanted.train.accumulate:
        batches.append((f"{train}.accumulate={most}", wanted.changed(accumulate=most)))
    if wanted.recipe.runtime.remat != "full":
        batches += [(f"{words} {remat}".strip(), request.changed(remat="full")) for words, request in list(batches)]
    for words, request in batches:
        try:
            parts = before if request is wanted else needs(request, devices)
        except ConfigError:
            continue
        rest = sum(parts.values()) - parts["optimizer"]
        if words and sum(parts.values()) >= sum(before.values()):
            continue  # the sum of gradients takes more than a smaller micro-batch saves
        if words:
            yield words, sum(parts.values())
        for moments in _MOMENTS:
            try:
                lighter = prepared_on(_plain(request.changed(moments=moments)), devices)
            except ValueError:  # a b2 that bfloat16 does not carry
                continue
            size = rest + lighter.resident["optimizer"]
            if size < sum(before.values()):
                yield f"{words} {train}.optimizer.moments={moments}".strip(), size


def text(found: Json) -> str:
    """The estimate as lines, and the remedies that fit."""
    parts, limit = found["bytes_per_device"], found["limit"]
    mesh = " × ".join(f"{axis} {size}" for axis, size in found["mesh"].items() if size > 1) or "1 device"
    lines = [
        f"stage '{found['stage']}', {found['parameters']:,} parameters, on {found['topology']} ({mesh}): "
        f"{parts['total'] / GIB:.1f} GiB per device by estimate, of {limit / GIB:.1f} that a program may use: "
        f"{'fits' if found['fits'] else 'does not fit'}",
        *(f"  {name:<14}{size / GIB:>9.2f}" for name, size in parts.items()),
    ]
    if found["fits"] and found["needs_fraction"]:
        lines.append("  set XLA_PYTHON_CLIENT_MEM_FRACTION=.92: JAX takes 75% of a GPU by default")
    rows, fitting = shown(found["remedies"])
    if rows:
        lines.append(
            "changes that need less" if found["fits"] else "changes that fit" if fitting else "nothing fits; nearest"
        )
        lines += [f"  {row['total'] / GIB:>6.1f} GiB  {row['change']}" for row in rows]
    return "\n".join(lines)
