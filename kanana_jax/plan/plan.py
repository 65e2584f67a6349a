"""Compiles a training stage for chips that are not present, and reports its cost.

A plan is of the program that trains: the engine's step with its shardings, donation, rematerialisation and attention
kernel goes through the chip's own compiler (`plan/measure.py`); its work is counted from the result
(`plan/costs.py`) and divided by what the chips can do (`parallel/chips.py`). Times are bounds: nothing is run.
"""

import dataclasses
import logging
import time

import jax

from kanana_jax.models import counts
from kanana_jax.plan import cache
from kanana_jax.plan import measure as measure_lib
from kanana_jax.plan.advice import advice
from kanana_jax.plan.request import Json, Request, prepared
from kanana_jax.stages.kind import Program, StagePrograms

log = logging.getLogger("kanana")
DAY = 86_400.0


def plan(wanted: Request, advise: bool = True) -> Json:
    """The plan, JSON-safe; see the contract of `kanana plan --json`.

    Args:
      advise: whether to look for a change that fits, if the stage does not.

    Raises:
      ConfigError: a mesh that does not divide the model, or a stage of unknown shape.
      UserError: the compiler failed for another reason than memory.
    """
    made, measured = measure(wanted)
    result = _report(wanted, made, measured)
    if not result["fits"] and advise:
        result["advice"] = advice(wanted, measured, lambda candidate: plan(candidate, advise=False))
    return result


def measure(wanted: Request) -> tuple[StagePrograms, Json]:
    """The programs of a stage and what the compiler made of them, from the cache if possible."""
    made = prepared(wanted)
    # The loop over steps is not in the program: a longer stage has the same one.
    train = dataclasses.replace(made.train, tokens=made.train.batch_tokens)
    name = cache.key(
        kind=made.kind,
        arguments=[_described(program.arguments) for program in made.programs],
        train=train,
        about=made.about,
        model=made.model,
        others={role: a.to_dict() for role, a in made.others.items()},
        mesh=[dict(p.mesh.shape) for p in made.programs],
        target=wanted.target,
        options=wanted.options,
    )
    found = cache.load(wanted.cache, name)
    if found is None:
        found = _compile(wanted, made)
        cache.save(wanted.cache, name, found)
    return made, found | {"cached_as": name}


def _described(arguments: Json) -> list[str]:
    """Shapes, dtypes and shardings of a program's arguments."""
    return [f"{leaf.shape} {leaf.dtype} {leaf.sharding.spec}" for leaf in jax.tree.leaves(arguments)]


def _compile(wanted: Request, made: StagePrograms) -> Json:
    target, shape = wanted.target, dict(made.mesh.shape)
    log.info("compiling stage '%s' for %s (%d chips), mesh %s", made.name, target.name, target.chips, shape)
    wall, cpu = time.perf_counter(), time.process_time()
    parts, activations = [], 0
    for program in made.programs:
        traced = program.trace()
        if program is made.step:
            activations = measure_lib.saved_activations(traced, made)
        measured = measure_lib.measure(program, traced, wanted.target, wanted.options)
        parts.append({"name": program.name, **dataclasses.asdict(dataclasses.replace(measured, text=""))})
        if not measured.fits:
            break
    return {
        "programs": parts,
        "activations": activations,
        "compile_s": {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu},
    }


def _report(wanted: Request, made: StagePrograms, measured: Json) -> Json:
    train, chip, target = made.train, wanted.target.chip, wanted.target
    parts = measured["programs"]
    # While one program runs, the other's arrays stay in memory too.
    everything = sum(made.resident.values()) + made.batch_bytes
    peak = max(p["peak"] + max(everything - p["arguments"], 0) if p["peak"] else 0 for p in parts)
    fits = all(p["fits"] for p in parts) and peak <= chip.hbm_bytes
    limit, temporaries = int(chip.hbm_bytes), max(p["temporaries"] for p in parts)
    activations = min(measured["activations"], temporaries) if temporaries else measured["activations"]
    flops = made.flops_per_token * train.batch_tokens
    result = {
        "stage": made.name,
        "kind": made.kind,
        "topology": target.name,
        "slices": target.slices,
        "chip": chip.label,
        "devices": target.chips,
        "mesh": dict(made.mesh.shape),
        "remat": made.model.runtime.remat,
        "accumulate": train.accumulate,
        "batch_tokens": train.batch_tokens,
        "rows_per_device": train.batch_size / train.accumulate / (made.mesh.shape["data"] * made.mesh.shape["fsdp"]),
        "parameters": counts.parameters(made.model.architecture),
        "teacher_parameters": sum(counts.parameters(a) for a in made.others.values()),
        "tokens": train.tokens,
        "steps": train.steps,
        "fits": fits,
        "hbm_bytes_per_device": {
            "limit": limit,
            "arguments": everything,
            "temporaries": temporaries,
            "peak": peak,
            **made.resident,
            "activations": activations,
        },
        "flops_per_step": flops,
        "six_n_d_per_step": counts.six_n_d(made.model.architecture, train.batch_tokens),
        "compile_s": measured["compile_s"],
        "cached_as": measured["cached_as"],
        "source": chip.source,
        "programs": [_program(program, part, wanted) for program, part in zip(made.programs, parts)],
    }
    return result | _roofline(wanted, parts, flops) if fits else result


def _program(program: Program, part: Json, wanted: Request) -> Json:
    """One program's part of memory and time."""
    chip = wanted.target.chip
    seconds = {
        "compute": part["flops"] / chip.bf16_flops,
        "hbm": part["hbm_bytes"] / chip.hbm_bandwidth,
        "network": sum(row["seconds"] for row in part["collectives"]),
    }
    return {"name": program.name, "peak": part["peak"], "holds": dict(program.holds), "seconds": seconds}


def _roofline(wanted: Request, parts: list[Json], flops: float) -> Json:
    """Times of a step from what each program does; see `plan/show.py` for how they read."""
    chip, chips, train = wanted.target.chip, wanted.target.chips, wanted.train
    rows = sorted((row for p in parts for row in p["collectives"]), key=lambda row: -row["seconds"])
    executed, moved = (sum(p[key] for p in parts) for key in ("flops", "hbm_bytes"))
    seconds = {
        "compute": executed / chip.bf16_flops,
        "hbm": moved / chip.hbm_bandwidth,
        "network": sum(row["seconds"] for row in rows),
    }
    bound = max(seconds.values())
    serial = sum(p["serial_s"] for p in parts) + seconds["network"]
    ideal = flops / (chips * chip.bf16_flops)
    days = train.steps * bound / DAY, train.steps * serial / DAY
    result = {
        "executed_flops_per_device": executed,
        "attention_flops_per_device": sum(p["kernel_flops"] for p in parts),
        "hbm_bytes_moved_per_device": moved,
        "ici_bytes_per_device": sum(row["ici_bytes"] for row in rows),
        "dcn_bytes_per_device": sum(row["dcn_bytes"] for row in rows),
        "seconds": seconds,
        "step_time_bound_s": bound,
        "step_time_no_overlap_s": serial,
        "bound_by": max(seconds, key=lambda part: seconds[part]),
        "mfu_bound": ideal / bound,
        "mfu_no_overlap": ideal / serial,
        "tokens_per_day": train.batch_tokens / bound * DAY,
        "tokens_per_day_no_overlap": train.batch_tokens / serial * DAY,
        "days": {"bound": days[0], "no_overlap": days[1]},
        "chip_hours": {"bound": days[0] * 24 * chips, "no_overlap": days[1] * 24 * chips},
        "collectives": rows,
    }
    price = wanted.recipe.plan.prices.get(wanted.target.name.split("-")[0]) or None
    cost = None if price is None else {kind: hours * price for kind, hours in result["chip_hours"].items()}
    return result | {"price_per_chip_hour": price, "cost": cost}
