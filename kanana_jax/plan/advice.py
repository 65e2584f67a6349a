"""Advice for a stage that does not fit: smaller micro-batches, more rematerialisation, more fsdp, a larger slice."""

import dataclasses
from collections.abc import Callable, Iterator

from kanana_jax.errors import ConfigError
from kanana_jax.parallel.chips import GIB
from kanana_jax.plan import topology
from kanana_jax.plan.measure import saved_activations
from kanana_jax.plan.request import REMAT_ORDER, Json, Request, accumulations, prepared
from kanana_jax.stages.kind import StagePrograms


def advice(wanted: Request, measured: Json, plan: Callable[[Request], Json]) -> Json:
    """The smallest config change that fits, verified by compiling it.

    Each candidate's memory is first estimated: permanent and saved-for-backward arrays are known from
    shapes, the rest is assumed constant.
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
            kept = saved_activations(made.step.trace(), made)
        except ConfigError:
            continue
        guess = sum(made.resident.values()) + made.batch_bytes + kept + rest
        if guess > 0.98 * limit:
            continue
        tries += 1
        found = plan(candidate)
        if found["fits"]:
            peak = found["hbm_bytes_per_device"]["peak"]
            return {
                "change": words,
                "peak": peak,
                "sentence": f"use {words}: then it takes {peak / GIB:.1f} of {limit / GIB:.0f} GiB per chip",
            }
        if tries == 4:
            break
    return {
        "change": "",
        "peak": 0,
        "sentence": "no smaller micro-batch, stronger rematerialisation, wider fsdp or larger slice was found that "
        "fits: use a chip with more memory, or a smaller model",
    }


def _candidates(wanted: Request, before: StagePrograms) -> Iterator[tuple[Request, str]]:
    """Changes from the cheapest to the most expensive, with their options."""
    shape, now = before.mesh.shape, before.train.accumulate
    more = [n for n in accumulations(wanted, shape["data"] * shape["fsdp"]) if n > now]
    remat = before.model.runtime.remat
    order = REMAT_ORDER.index(remat) if remat in REMAT_ORDER else len(REMAT_ORDER) - 1
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


def _larger(wanted: Request, before: StagePrograms, stronger: tuple[str, ...]) -> Iterator[tuple[Request, str]]:
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
        for remat in (before.model.runtime.remat, *stronger[-1:]):
            larger = dataclasses.replace(wanted, target=target).changed(mesh=mesh, remat=remat)
            shards = before.mesh.shape["data"] * before.mesh.shape["fsdp"] * factor
            options = accumulations(larger, shards)
            for n in sorted({min(options), max(options)}) if options else ():
                words = f"--topology {target.name} {key}={n} --config.runtime.remat={remat}"
                if mesh:
                    words += " --config.mesh.fsdp=-1"
                yield larger.changed(accumulate=n), f"{words} (more fsdp)"
