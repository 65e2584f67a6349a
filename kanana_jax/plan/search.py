"""Tries meshes, micro-batches and rematerialisation for a stage on a slice: the Pareto set of time against memory."""

import itertools
from collections.abc import Iterable

from jax.sharding import AbstractMesh

from kanana_jax.errors import ConfigError
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture
from kanana_jax.parallel.chips import GIB
from kanana_jax.parallel.mesh import AXES
from kanana_jax.parallel.sharding import check_divisible
from kanana_jax.plan import plan as plan_lib
from kanana_jax.plan.request import REMAT_ORDER, Json, Request, accumulations
from kanana_jax.recipe.context import architectures
from kanana_jax.training.task import TrainConfig


def candidates(wanted: Request) -> list[tuple[Request, Json]]:
    """Every mesh that divides the stage × every micro-batch × every policy, as requests and what they change."""
    chips, slices = wanted.target.chips, wanted.target.slices
    found = []
    powers = [1 << i for i in range(chips.bit_length())]
    for tensor, data in itertools.product(powers[:5], powers):
        if chips % (tensor * data) or data % slices:
            continue
        fsdp = chips // (tensor * data)
        mesh = {"data": data, "fsdp": fsdp, "tensor": tensor, "sequence": 1}
        for accumulate in accumulations(wanted, data * fsdp):
            for remat in REMAT_ORDER:
                change: Json = {"mesh": mesh, "accumulate": accumulate, "remat": remat}
                found.append((wanted.changed(**change), change))
    return found


def kept_bytes(a: Architecture, tokens: float, tensor: int, remat: str) -> float:
    """Bytes that a policy keeps of `tokens` tokens for the backward pass, by formula."""
    heads, keys, wide = (n / tensor for n in (a.num_heads * a.head_dim, 2 * a.num_kv_heads * a.head_dim, a.mlp_dim))
    dots = 2 * a.embed_dim + heads + keys + 2 * wide
    context = heads + 2 * a.num_heads / tensor  # of each head and token one float32: log Σ exp
    widths = {"full": 0, "context": context, "dots": dots, "none": dots + 4 * a.embed_dim + context + heads + 3 * wide}
    return 2.0 * tokens * (a.embed_dim + widths[remat]) * a.num_layers


def guess(a: Architecture, others: Iterable[Architecture], train: TrainConfig, change: Json) -> tuple[float, float]:
    """Memory (bytes per device) and network traffic (bytes per device and step) from shapes alone, to order the tries.

    Args:
      others: architectures of the stage's other models.

    Memory: float32 parameters, moments and gradients (bfloat16 ones with their float32 master take as much), what is
    kept for the backward pass, a chunk's logits and the output matrix. Traffic: bfloat16 weights are gathered twice and
    gradients scattered once a micro-batch over fsdp, and reduced over data; two states a layer and pass are reduced
    over tensor.
    """
    mesh, accumulate = change["mesh"], change["accumulate"]
    tokens = train.batch_tokens / accumulate / (mesh["data"] * mesh["fsdp"])
    weights = counts.parameters(a) / mesh["tensor"]
    matrix, logits = (n * a.vocab_size / mesh["tensor"] for n in (a.embed_dim, train.loss_chunk))
    memory = 16.0 * weights / mesh["fsdp"] + kept_bytes(a, tokens, mesh["tensor"], change["remat"])
    memory += 12.0 * logits + 8.0 * matrix
    for other in others:
        memory += 2.0 * counts.parameters(other) / (mesh["tensor"] * mesh["fsdp"])
    traffic = 2.0 * weights * ((3 if mesh["fsdp"] > 1 else 0) + (2 / mesh["fsdp"] if mesh["data"] > 1 else 0))
    if mesh["tensor"] > 1:
        traffic += 8 * 2 * tokens * a.embed_dim * 2 * a.num_layers
    return memory, traffic * accumulate


def search(wanted: Request, tries: int) -> Json:
    """Compiles the most promising candidates.

    A first guess from shapes drops what cannot fit (110% of the memory) and orders the rest by recomputation and
    traffic; only the best micro-batch of each mesh and policy is compiled.

    Args:
      tries: programs compiled at most.

    Returns:
      `{"tried": […], "pareto": […], "candidates": n}`; rows are short plans, the Pareto set ordered by time.
    """
    limit, ranked = wanted.target.chip.hbm_bytes, []
    groups: dict[tuple, int] = {}
    everything, chip = candidates(wanted), wanted.target.chip
    architecture = architectures(wanted.recipe, wanted.stages)
    a = architecture(wanted.stage)
    others = {role: architecture(name) for role, name in wanted.stages[wanted.stage].others().items()}
    needed = counts.train_flops_per_token(a, wanted.train.seq_len) * wanted.train.batch_tokens / wanted.target.chips
    for request, change in everything:
        shape = AbstractMesh(tuple(change["mesh"][axis] for axis in AXES), AXES)
        try:
            for role, model in {"model": a, **others}.items():
                check_divisible(shape, counts.sizes(model, role))
        except ConfigError:
            continue
        memory, traffic = guess(a, others.values(), wanted.train, change)
        if memory > 1.1 * limit:
            continue
        again = {"none": 1.0, "dots": 1.05, "context": 1.27, "full": 1.33}[change["remat"]]
        seconds = again * needed / chip.bf16_flops + traffic / (2 * chip.link_bandwidth * max(chip.torus, 1))
        key = (change["mesh"]["data"], change["mesh"]["tensor"], change["remat"])
        ranked.append((seconds, key, request, change))
    ranked.sort(key=lambda row: row[0])
    first = [row for row in ranked if groups.setdefault(row[1], id(row[2])) == id(row[2])]
    rows = []
    for _, _, request, change in first[:tries]:
        found = plan_lib.plan(request, advise=False)
        rows.append(_short(found, change))
    pareto = front([row for row in rows if row["fits"]])
    return {
        "stage": wanted.stage,
        "topology": wanted.target.name,
        "candidates": len(everything),
        "tried": rows,
        "pareto": pareto,
    }


def _short(found: Json, change: Json) -> Json:
    keys = ("fits", "step_time_bound_s", "step_time_no_overlap_s", "mfu_bound", "mfu_no_overlap", "bound_by")
    return {**change, **{key: found.get(key) for key in keys}, "peak": found["hbm_bytes_per_device"]["peak"]}


def front(rows: list[Json]) -> list[Json]:
    """Rows that no other beats in both time (without overlap) and memory, the fastest first."""
    ordered = sorted(rows, key=lambda row: (row["step_time_no_overlap_s"], row["peak"]))
    kept: list[Json] = []
    for row in ordered:
        if not kept or row["peak"] < kept[-1]["peak"]:
            kept.append(row)
    return kept


def text(found: Json) -> str:
    """The tries as text, the Pareto set marked."""
    lines = [
        f"stage '{found['stage']}' on {found['topology']}: {len(found['tried'])} of {found['candidates']} combinations "
        "compiled; * no other is both faster and smaller",
        f"    {'mesh':<28}{'micro-batches':>14}{'remat':>9}{'GiB':>8}{'s, overlap':>12}{'s, none':>10}{'MFU %':>14}",
    ]
    for row in sorted(found["tried"], key=lambda r: r["step_time_no_overlap_s"] or float("inf")):
        mesh = " × ".join(f"{axis} {size}" for axis, size in row["mesh"].items() if size > 1) or "1 device"
        line = f"  {'*' if row in found['pareto'] else ' '} {mesh:<28}{row['accumulate']:>14}{row['remat']:>9}"
        if row["fits"]:
            mfu = f"{100 * row['mfu_bound']:.1f} / {100 * row['mfu_no_overlap']:.1f}"
            times = f"{row['step_time_bound_s']:>12.2f}{row['step_time_no_overlap_s']:>10.2f}"
            line += f"{row['peak'] / GIB:>8.1f}{times}{mfu:>14}"
        else:
            line += f"{row['peak'] / GIB:>8.1f}   does not fit"
        lines.append(line)
    return "\n".join(lines)
