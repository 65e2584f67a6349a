"""Compiles a training stage for chips that are not here, and says what it will cost.

A plan is of the program that trains: the engine's step with its shardings, donation, rematerialisation and attention
kernel goes through the chip's own compiler (`plan/stage.py`); what it does is counted from the result
(`plan/costs.py`) and divided by what the chips can do (`parallel/chips.py`). Times are bounds: nothing is run.
"""

import dataclasses
import logging
import pathlib
import time
from typing import Any

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.models import counts
from kanana_jax.models.transformer import REMAT_POLICIES
from kanana_jax.parallel.chips import GIB
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.plan import cache as plan_cache
from kanana_jax.plan import stage as plan_stage
from kanana_jax.plan import topology
from kanana_jax.recipe.config import RecipeConfig, StageConfig

log = logging.getLogger("kanana")
Json = dict[str, Any]
DAY = 86_400.0
# What keeps the least stands last.
REMAT_ORDER = ("none", "dots", "context", "full")
assert set(REMAT_ORDER[1:]) < set(REMAT_POLICIES)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be planned.

    Attributes:
      recipe, stages: from `recipe_config.parse`.
      stage: its name.
      target: the slice, or several joined.
      cache: where measurements are kept; None: nowhere.
      options: of the compiler; None: its own, as a run has them.
    """

    recipe: RecipeConfig
    stages: dict[str, StageConfig]
    stage: str
    target: topology.Slice
    cache: pathlib.Path | None = None
    options: dict[str, Any] | None = None

    def changed(
        self, *, accumulate: int | None = None, remat: str | None = None, mesh: Json | None = None
    ) -> "Request":
        """The same with another micro-batch, rematerialisation or mesh."""
        stage, recipe = self.stages[self.stage], self.recipe
        if accumulate is not None:
            stage = dataclasses.replace(stage, train=dataclasses.replace(stage.train, accumulate=accumulate))
        if remat is not None:
            recipe = dataclasses.replace(recipe, runtime=dataclasses.replace(recipe.runtime, remat=remat))
        if mesh is not None:
            recipe = dataclasses.replace(recipe, mesh=dataclasses.replace(recipe.mesh, **mesh))
        return dataclasses.replace(self, recipe=recipe, stages={**self.stages, self.stage: stage})

    @property
    def train(self):
        return self.stages[self.stage].train


def request(
    recipe: RecipeConfig,
    stages: dict[str, StageConfig],
    stage: str,
    name: str,
    slices: int = 0,
    cache: pathlib.Path | None = None,
) -> Request:
    """A request for a named topology.

    Args:
      stage: empty: the first that trains.
      name: `v5p-128`, the name of one slice.
      slices: 0: as many as the config's mesh has, cut as it says.

    Raises:
      ConfigError: no such stage or topology, or the stage trains nothing.
    """
    trained = [n for n, s in stages.items() if s.kind in plan_stage.TRAINED]
    if stage and stage not in stages:
        raise ConfigError(f"--stage '{stage}' is not in the config: {nearest(stage, trained)}")
    if not trained or (stage and stage not in trained):
        kind = f"'{stage}' is of kind '{stages[stage].kind}'" if stage else "the config has none that is"
        raise ConfigError(f"a plan is of a stage that trains ({', '.join(plan_stage.TRAINED)}); {kind}")
    mesh = recipe.mesh
    if slices:
        # As `launch/tpu.py --slices` starts it: each slice holds the whole model, unless the config says otherwise.
        mesh = dataclasses.replace(mesh, slices=slices, data=slices if mesh.data == 1 else mesh.data)
    slices, recipe = mesh.slices, dataclasses.replace(recipe, mesh=mesh)
    target = topology.named(name, slices, recipe.plan.dcn_bandwidth.get(name.split("-")[0]))
    return Request(recipe, stages, stage or trained[0], target, cache)


def plan(wanted: Request, advise: bool = True) -> Json:
    """The plan, JSON-safe; see the contract of `kanana plan --json`.

    Args:
      advise: where it does not fit, look for a change that does.

    Raises:
      ConfigError: a mesh that does not divide the model, or a stage whose shape is not known.
      UserError: the compiler failed for another reason than memory.
    """
    made, measured = measure(wanted)
    result = _report(wanted, made, measured)
    if not result["fits"] and advise:
        result["advice"] = _advice(wanted, measured)
    return result


def prepared(wanted: Request) -> plan_stage.StagePrograms:
    """The stage on the mesh of its slice, not compiled."""
    mesh = make_mesh(wanted.recipe.mesh, topology.describe(wanted.target))
    return plan_stage.prepare(wanted.stage, wanted.recipe, wanted.stages, mesh)


def measure(wanted: Request) -> tuple[plan_stage.StagePrograms, Json]:
    """The programs of a stage and what the compiler made of them, from the cache where it is known."""
    made = prepared(wanted)
    # The loop over steps is not in the program: a stage that is longer is the same.
    train = dataclasses.replace(made.stage.train, tokens=made.stage.train.batch_tokens)
    name = plan_cache.key(
        train=train,
        distill=made.stage.distill,
        runtime=made.runtime,
        architecture=made.architecture,
        teacher=made.teacher,
        mesh=[dict(p.mesh.shape) for p in made.programs],
        target=wanted.target,
        options=wanted.options,
    )
    found = plan_cache.load(wanted.cache, name)
    if found is None:
        found = _compile(wanted, made)
        plan_cache.save(wanted.cache, name, found)
    return made, found | {"cached_as": name}


def _compile(wanted: Request, made: plan_stage.StagePrograms) -> Json:
    target, shape = wanted.target, dict(made.mesh.shape)
    log.info("compiling stage '%s' for %s (%d chips), mesh %s", made.name, target.name, target.chips, shape)
    wall, cpu = time.perf_counter(), time.process_time()
    parts, activations = [], 0
    for program in made.programs:
        traced = program.trace()
        if program.name == "step":
            activations = plan_stage.saved_activations(traced, made)
        measured = plan_stage.measure(program, traced, wanted.target, wanted.options)
        parts.append({"name": program.name, **dataclasses.asdict(dataclasses.replace(measured, text=""))})
        if not measured.fits:
            break
    return {
        "programs": parts,
        "activations": activations,
        "compile_s": {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu},
    }


def _report(wanted: Request, made: plan_stage.StagePrograms, measured: Json) -> Json:
    train, chip, target = made.stage.train, wanted.target.chip, wanted.target
    parts = measured["programs"]
    # While one program runs, what only the other reads lies there too.
    everything = sum(made.resident.values()) + made.batch_bytes
    peak = max(p["peak"] + max(everything - p["arguments"], 0) if p["peak"] else 0 for p in parts)
    fits = all(p["fits"] for p in parts) and peak <= chip.hbm_bytes
    limit, temporaries = int(chip.hbm_bytes), max(p["temporaries"] for p in parts)
    activations = min(measured["activations"], temporaries) if temporaries else measured["activations"]
    flops = made.flops_per_token * train.batch_tokens
    result = {
        "stage": made.name,
        "kind": made.stage.kind,
        "topology": target.name,
        "slices": target.slices,
        "chip": chip.label,
        "devices": target.chips,
        "mesh": dict(made.mesh.shape),
        "remat": made.runtime.remat,
        "accumulate": train.accumulate,
        "batch_tokens": train.batch_tokens,
        "rows_per_device": train.batch_size / train.accumulate / (made.mesh.shape["data"] * made.mesh.shape["fsdp"]),
        "parameters": counts.parameters(made.architecture),
        "teacher_parameters": counts.parameters(made.teacher) if made.teacher else 0,
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
        "six_n_d_per_step": counts.six_n_d(made.architecture, train.batch_tokens),
        "compile_s": measured["compile_s"],
        "cached_as": measured["cached_as"],
        "source": chip.source,
    }
    return result | _roofline(wanted, parts, flops) if fits else result


def _roofline(wanted: Request, parts: list[Json], flops: float) -> Json:
    """Times of a step from what each program does; see `plan_show` for how they read."""
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
        "bound_by": max(seconds, key=seconds.get),
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


def accumulations(wanted: Request, shards: int) -> list[int]:
    """Numbers of micro-batches that divide the rows of a batch among so many shards."""
    rows = wanted.train.batch_size
    return [n for n in range(1, rows // shards + 1) if rows % n == 0 and rows // n % shards == 0]


def _advice(wanted: Request, measured: Json) -> Json:
    """The smallest change that fits, compiled before it is told.

    Each candidate's memory is first guessed: what lies there and what is kept for the backward pass are known from
    shapes, the rest is taken to stay.
    """
    limit = wanted.target.chip.hbm_bytes
    before = prepared(wanted)
    asked = max((p["peak"] for p in measured["programs"]), default=0)
    known = sum(before.resident.values()) + before.batch_bytes + measured["activations"]
    rest = max(asked - known, 0) if asked else 0.2 * limit
    tries = 0
    for candidate, words in _candidates(wanted, before):
        try:
            made = prepared(candidate)
            kept = plan_stage.saved_activations(made.programs[-1].trace(), made)
        except ConfigError:
            continue
        guess = sum(made.resident.values()) + made.batch_bytes + kept + rest
        if guess > 0.98 * limit:
            continue
        tries += 1
        found = plan(candidate, advise=False)
        if found["fits"]:
            peak = found["hbm_bytes_per_device"]["peak"]
            return {
                "change": words,
                "peak": peak,
                "sentence": f"use {words}: then it takes {peak / GIB:.1f} of {limit / GIB:.0f} GiB a chip",
            }
        if tries == 4:
            break
    return {
        "change": "",
        "peak": 0,
        "sentence": "no smaller micro-batch, stronger rematerialisation, wider fsdp or larger slice was found that "
        "fits: take a chip with more memory, or a smaller model",
    }


def _candidates(wanted: Request, before: plan_stage.StagePrograms):
    """Changes from the cheapest to the dearest, with the options that make them."""
    shape, now = before.mesh.shape, before.stage.train.accumulate
    more = [n for n in accumulations(wanted, shape["data"] * shape["fsdp"]) if n > now]
    order = REMAT_ORDER.index(before.runtime.remat) if before.runtime.remat in REMAT_ORDER else len(REMAT_ORDER) - 1
    stronger = REMAT_ORDER[order + 1 :]
    key = f"--config.{wanted.stage}.train.accumulate"
    for n in more:
        yield wanted.changed(accumulate=n), f"{key}={n} (a smaller micro-batch)"
    for remat in stronger:
        yield wanted.changed(remat=remat), f"--config.runtime.remat={remat} (stronger rematerialisation)"
        for n in more:
            words = f"{key}={n} --config.runtime.remat={remat} (a smaller micro-batch and stronger rematerialisation)"
            yield wanted.changed(accumulate=n, remat=remat), words
    if shape["data"] > 1:
        for n in (now, *more):
            mesh = {"data": wanted.target.slices, "fsdp": -1}
            words = f"--config.mesh.data={wanted.target.slices} --config.mesh.fsdp=-1 {key}={n} (more fsdp)"
            yield wanted.changed(mesh=mesh, accumulate=n), words
    yield from _larger(wanted, before, stronger)


def _larger(wanted: Request, before: plan_stage.StagePrograms, stronger: tuple[str, ...]):
    family, size = wanted.target.name.split("-")
    key = f"--config.{wanted.stage}.train.accumulate"
    if not wanted.target.chip.torus:
        return
    for factor in (2, 4, 8, 16):
        try:
            target = topology.named(
                f"{family}-{int(size) * factor}", wanted.target.slices, wanted.target.chip.dcn_bandwidth
            )
        except ConfigError:
            continue
        mesh = {"fsdp": -1} if wanted.recipe.mesh.data != -1 else {}
        for remat in (before.runtime.remat, *stronger[-1:]):
            larger = dataclasses.replace(wanted, target=target).changed(mesh=mesh, remat=remat)
            shards = before.mesh.shape["data"] * before.mesh.shape["fsdp"] * factor
            options = accumulations(larger, shards)
            for n in sorted({min(options), max(options)}) if options else ():
                words = f"--topology {target.name} {key}={n} --config.runtime.remat={remat}"
                if mesh:
                    words += " --config.mesh.fsdp=-1"
                yield larger.changed(accumulate=n), f"{words} (more fsdp)"
