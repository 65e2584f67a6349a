"""A plan as text for the terminal."""

from typing import Any

from kanana_jax.parallel.chips import GIB

Json = dict[str, Any]
_SHOWN_COLLECTIVES = 12
# Keys of `hbm_bytes_per_device` that do not belong to the memory permanently in use.
_NOT_RESIDENT = ("limit", "arguments", "temporaries", "peak", "activations")


def text(plan: Json) -> str:
    """The whole plan, a line for each figure."""
    slices = f"{plan['slices']} × " if plan["slices"] > 1 else ""
    lines = [
        f"stage '{plan['stage']}' ({plan['kind']}) on {slices}{plan['topology']}: {plan['devices']} × {plan['chip']}, "
        "mesh " + " × ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1),
        _row("parameters", f"{plan['parameters']:,}" + _teacher(plan)),
        _row(
            "batch",
            f"{plan['batch_tokens']:,} tokens in {plan['accumulate']} micro-batch(es) of {plan['rows_per_device']:g} "
            f"row(s) a device, remat '{plan['remat']}'",
        ),
        *_memory(plan),
    ]
    if plan["fits"]:
        lines += [*_work(plan), *_programs(plan), *_collectives(plan), *_stage(plan)]
    else:
        lines += [f"DOES NOT FIT: {plan.get('advice', {}).get('sentence', 'no change was looked for')}"]
    return "\n".join(lines)


def _row(name: str, value: str) -> str:
    return f"  {name:<22}{value}"


def _teacher(plan: Json) -> str:
    return f", teacher {plan['teacher_parameters']:,}" if plan["teacher_parameters"] else ""


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _memory(plan: Json) -> list[str]:
    memory = plan["hbm_bytes_per_device"]
    rest = max(memory["temporaries"] - memory["activations"], 0)
    resident = ", ".join(f"{k} {_gib(memory[k])}" for k in memory if k not in _NOT_RESIDENT)
    used = f"{_gib(memory['peak'])} of {_gib(memory['limit'])}" if memory["peak"] else "the compiler found no room"
    kept = f"activations kept {_gib(memory['activations'])}"
    if memory["temporaries"]:
        kept += f", other temporaries {_gib(rest)}"
    return [_row("memory per device", used), _row("", resident), _row("", kept)]


def _work(plan: Json) -> list[str]:
    seconds = plan["seconds"]
    executed = plan["executed_flops_per_device"] * plan["devices"]
    return [
        _row("FLOPs per step", f"{plan['flops_per_step']:.4g} exact, causal; 6·N·D {plan['six_n_d_per_step']:.4g}"),
        _row("", f"{executed:.4g} executed (remat and the kernel's own included)"),
        _row("HBM traffic", f"{plan['hbm_bytes_moved_per_device'] / 1e9:,.1f} GB per device and step"),
        _row(
            "network traffic",
            f"{plan['ici_bytes_per_device'] / 1e9:,.2f} GB per device and step over ICI, "
            f"{plan['dcn_bytes_per_device'] / 1e9:,.2f} GB over DCN",
        ),
        _row(
            "time per step",
            f"compute {seconds['compute']:.3f} s, HBM {seconds['hbm']:.3f} s, network {seconds['network']:.3f} s: "
            f"bound by {plan['bound_by']}",
        ),
        _row(
            "MFU at most",
            f"{100 * plan['mfu_bound']:.1f}% with perfect overlap, {100 * plan['mfu_no_overlap']:.1f}% with none",
        ),
    ]


def _programs(plan: Json) -> list[str]:
    """A line for each program of a stage that has several."""
    if len(plan["programs"]) < 2:
        return []
    lines = ["  programs of a step"]
    for program in plan["programs"]:
        seconds = program["seconds"]
        holds = ", ".join(f"{what} {_gib(size)}" for what, size in program["holds"].items())
        lines.append(
            f"    {program['name']:<11}{_gib(program['peak']):>10}{f' ({holds})' if holds else ''}, compute "
            f"{seconds['compute']:.3f} s, HBM {seconds['hbm']:.3f} s, network {seconds['network']:.3f} s"
        )
    return lines


def _collectives(plan: Json) -> list[str]:
    rows = plan["collectives"]
    lines = [f"  collectives per step ({len(rows)} kinds; the longest)"]
    for row in rows[:_SHOWN_COLLECTIVES]:
        lines.append(
            f"    {row['kind']:<19}{row['axis']:<12}{row['devices']:>5} devices {row['bytes'] / 1e6:>10,.2f} MB "
            f"{row['dtype']:<5} × {row['times']:<6}{1e3 * row['seconds']:>9.2f} ms"
        )
    return lines


def _stage(plan: Json) -> list[str]:
    days, hours, cost = plan["days"], plan["chip_hours"], plan["cost"]
    chip = plan["topology"].split("-")[0]
    money = (
        f"{cost['bound']:,.0f} to {cost['no_overlap']:,.0f} at {plan['price_per_chip_hour']:g} a chip-hour"
        if cost
        else f"unknown: set config plan.prices.{chip} to the price of a chip-hour"
    )
    return [
        _row(
            "tokens per day",
            f"{plan['tokens_per_day']:.4g} at most, {plan['tokens_per_day_no_overlap']:.4g} without overlap",
        ),
        _row(
            f"{plan['tokens']:.4g} tokens",
            f"{plan['steps']:,} steps: at least {days['bound']:.2f} days ({days['no_overlap']:.2f} without overlap), "
            f"{hours['bound']:,.0f} chip-hours ({hours['no_overlap']:,.0f})",
        ),
        _row("cost", money),
    ]
