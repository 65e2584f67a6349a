"""A sampling stage as programs on shapes: the sampler, the reward model, the reference, and the step."""

import dataclasses
import json
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.inference.generate import as_written, longest
from kanana_jax.inference.prefix import rounded
from kanana_jax.inference.reward_model import passes, rows_at_once
from kanana_jax.interop.weights import NUMPY
from kanana_jax.models import counts, reward
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.model import Model
from kanana_jax.parallel.sharding import RULES, abstract_batch, abstract_tree, tree_shardings
from kanana_jax.stages import text
from kanana_jax.stages.kind import Program, Shapes, StagePrograms, device_bytes
from kanana_jax.stages.sampling import SamplingStage, sampler_mesh
from kanana_jax.training.step import Loss


def programs(
    name: str,
    config: SamplingStage,
    shapes: Shapes,
    model: Model,
    loss: Loss,
    *,
    batch: Any,
    before: tuple[Program, ...] = (),
    flops: float = 0.0,
    **others: Any,
) -> StagePrograms:
    """The sampler, the programs that run before the step, and the step.

    Args:
      batch: arrays of a step's rows, which use no memory.
      flops: FLOPs of the other models per token, without the sampler's.
      others: see `text.step_programs`.
    """
    mesh, own, train = shapes.mesh, config.rollout, config.train
    mesh_of = sampler_mesh(config, mesh, model)
    prompts = (config.answers_per_step, rounded(config.longest_prompt))
    ids = abstract_batch(mesh_of, np.broadcast_to(np.int32(0), prompts))
    runs = model if mesh_of is mesh else as_written(model)
    params = abstract_tree(runs.abstract_params(), tree_shardings(mesh_of, model.logical_axes()))
    vocabulary = model.architecture.vocab_size
    write = longest(model, new=own.max_new_tokens, sampling=own.sampling, tokens=vocabulary)
    cache = {"KV cache": _cache_bytes(model, prompts[0], prompts[1] + own.max_new_tokens, mesh_of)}
    sampler = Program("sampler", write, {"params": params, "ids": ids, "segments": ids}, mesh_of, cache)
    resident = dict(others.pop("resident", {}))
    architectures = dict(others.pop("architectures", {}))
    if mesh_of is not mesh:
        resident["sampler"] = device_bytes(params)
    spent = config.answers_per_step * counts.written_flops(model.architecture, prompts[1], own.max_new_tokens)
    if config.reward.model:
        architectures["reward"] = a = shapes.architecture(config.reward.model)
        reader = _reader(config, shapes, a)
        before = (reader, *before)
        resident["reward"] = device_bytes(reader.arguments["params"])
        spent += config.answers_per_step * counts.written_flops(a, reader.arguments["inputs"].shape[1], 0)
    others.setdefault("about", {})
    others["about"] |= {"rollout": json.loads(json.dumps(dataclasses.asdict(own)))}
    made = text.step_programs(
        name,
        config,
        shapes,
        model,
        loss,
        batch=abstract_batch(mesh, batch),
        before=(sampler, *before),
        flops=flops,
        resident=resident,
        architectures=architectures,
        **others,
    )
    rows = len(jax.tree.leaves(batch)[0])
    per_token = made.flops_per_token * rows / train.batch_size + spent / train.batch_tokens
    return dataclasses.replace(made, flops_per_token=per_token)


def _cache_bytes(model: Model, rows: int, tokens: int, mesh: Mesh) -> int:
    """Bytes per device of keys and values of rows of full length; rows and heads are sharded like those of a batch."""
    a, itemsize = model.architecture, np.dtype(NUMPY[model.runtime.compute_dtype]).itemsize
    parts = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    heads = a.num_kv_heads // math.prod(mesh.shape[axis] for axis in RULES["kv_heads"])
    return 2 * counts.cached_tokens(a, tokens) * heads * a.head_dim * itemsize * rows // parts


def _reader(config: SamplingStage, shapes: Shapes, architecture: Architecture) -> Program:
    """The reward model's passes over the answers of a step."""
    mesh, at_once = shapes.mesh, config.read_at_once
    judge = shapes.model(architecture, config.train.seq_len, text.frozen_runtime(shapes.runtime, config.reward.dtype))
    head = {reward.HEAD: reward.abstract_head(judge)}
    params = abstract_tree(
        {**judge.abstract_params(), **head}, tree_shardings(mesh, {**judge.logical_axes(), reward.HEAD: reward.AXES})
    )
    size = rows_at_once(mesh, at_once)
    rows = -(-config.answers_per_step // size) * size
    longest = rounded(config.longest_prompt + config.rollout.max_new_tokens)
    inputs = np.broadcast_to(np.int32(0), (rows, min(longest, architecture.max_seq_len)))
    arguments = {
        "params": params,
        "inputs": abstract_batch(mesh, inputs),
        "lengths": abstract_batch(mesh, inputs[:, 0]),
    }
    return Program("reward", passes(judge, mesh, at_once), arguments, mesh)
