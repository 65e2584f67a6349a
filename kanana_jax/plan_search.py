"""Tries meshes, micro-batches and rematerialisation for a stage on a slice: the Pareto set of time against memory."""

import itertools

from kanana_jax import plan as plan_lib
from kanana_jax import plan_stage
from kanana_jax.config import ConfigError
from kanana_jax.parallel.chips import GIB
from kanana_jax.plan import REMAT_ORDER, Json, Request


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
        for accumulate in plan_lib.accumulations(wanted, data * fsdp):
            for remat in REMAT_ORDER:
                change = {"mesh": mesh, "accumulate": accumulate, "remat": remat}
                found.append((wanted.changed(**change), change))
    return found


def guess(made: plan_stage.StagePrograms, kept: int) -> tuple[float, float]:
    """Memory (bytes a device) and network traffic (bytes a device a step) from shapes alone, to order the tries.

    Memory: what lies there, float32 gradients, what is kept for the backward pass, a chunk's logits and the output
    matrix. Traffic: weights are gathered twice and gradients scattered once a micro-batch over fsdp and reduced over
    data; two states a layer and pass are reduced over tensor.
    """
    mesh, train, a = made.mesh.shape, made.stage.train, made.architecture
    weights = made.resident["parameters"] * mesh["fsdp"] / 2  # gathered, in bfloat16
    tokens = train.batch_tokens / train.accumulate / (mesh["data"] * mesh["fsdp"] * mesh["sequence"])
    matrix = a.vocab_size * a.embed_dim / mesh["tensor"]
    logits = 4.0 * train.loss_chunk * a.vocab_size / mesh["tensor"]
    memory = sum(made.resident.values()) + made.resident["parameters"] + kept + 3 * logits + 8.0 * matrix
    traffic = weights * (3 if mesh["fsdp"] > 1 else 0) + (2 * weights / mesh["fsdp"] if mesh["data"] > 1 else 0)
    if mesh["tensor"] > 1:
        traffic += 8 * 2 * tokens * a.embed_dim * 2 * a.num_layers
    return memory, traffic * train.accumulate


def kept_bytes(made: plan_stage.StagePrograms) -> int:
    """What a policy keeps for the backward pass, by formula: the input of a layer, and what the policy names."""
    a, train, mesh = made.architecture, made.stage.train, made.mesh.shape
    heads, keys = a.num_heads * a.head_dim / mesh["tensor"], 2 * a.num_kv_heads * a.head_dim / mesh["tensor"]
    wide = a.mlp_dim / mesh["tensor"]
    dots = 2 * a.embed_dim + heads + keys + 2 * wide
    widths = {"full": 0, "context": heads, "dots": dots, "none": dots + 4 * a.embed_dim + 2 * heads + 3 * wide}
    width = a.embed_dim + widths.get(made.runtime.remat, 0)
    tokens = train.batch_tokens / train.accumulate / (mesh["data"] * mesh["fsdp"] * mesh["sequence"])
    return int(2 * tokens * width * a.num_layers)


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
    everything = candidates(wanted)
    for request, change in everything:
        key = (change["mesh"]["data"], change["mesh"]["tensor"], change["remat"])
        try:
            made = plan_lib.prepared(request)
        except ConfigError:
            continue
        memory, traffic = guess(made, kept_bytes(made))
        if memory > 1.1 * limit:
            continue
        compute = {"none": 1.0, "dots": 1.05, "context": 1.27, "full": 1.33}[change["remat"]]
        flops = compute * made.flops_per_token * made.stage.train.batch_tokens / wanted.target.chips
        network = traffic / (2 * wanted.target.chip.link_bandwidth * wanted.target.chip.torus)
        ranked.append((flops / wanted.target.chip.bf16_flops + network, key, request, change))
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
    """What was tried, the Pareto set marked."""
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

