"""`model.json`: the history of a model, a file in its Hugging Face folder."""

import os
import pathlib
from typing import Any, TypedDict, Unpack

from kanana_jax.files import place
from kanana_jax.interop.foreign import Fields, read_object
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture

CARD = "model.json"


class Flops(TypedDict):
    """Exact matmul FLOPs (`models/counts.py`) of the stage that made a model, by purpose."""

    train: float
    teacher: float
    calibration: float


class MoreFlops(Flops, total=False):
    """FLOPs of a stage that samples, including those of generating replies and of the reward model that scores them."""

    sampler: float
    reward: float


class About(TypedDict, total=False):
    """Optional entries of `model.json`, which only some stages write.

    Attributes:
      stage: name of the stage.
      evaluation: results of the stage's last evaluation.
      flops_six_n_d: 6 · parameters · tokens.
      other_tokens: number of tokens read and written by a sampler and read by a reward model, by role.
      cache: folder of the teacher's cached outputs that the stage learned from, in the form of `noted`.
      embedding: how the model embeds texts, see `models.embedding.Embedding`.
      merged: paths of the models whose weights were merged, in the form of `parent_path`.
    """

    stage: str
    evaluation: dict[str, Any]
    flops_six_n_d: float
    other_tokens: dict[str, int]
    cache: str
    embedding: dict[str, Any]
    merged: list[str]


class Card(About, TypedDict, total=False):
    """`model.json`: a model's history; folders that other tools have written have none.

    Attributes:
      architecture: JSON form of the architecture.
      parameters: number of parameters.
      tokens: number of tokens that the stage trained on.
      flops: cost of the stage.
      parent: path of the model that it was made from, in the form of `parent_path`.
      tokenizer: fingerprint of the tokenizer.
    """

    architecture: dict[str, Any]
    parameters: int
    tokens: int
    flops: MoreFlops
    parent: str | None
    tokenizer: str | None


def card(
    a: Architecture,
    *,
    tokens: int = 0,
    train_flops: float = 0.0,
    teacher_flops: float = 0.0,
    calibration_flops: float = 0.0,
    parent: str | None = None,
    tokenizer: str | None = None,
    **more: Unpack[About],
) -> Card:
    """Contents of a new `model.json`."""
    return {
        "architecture": a.to_dict(),
        "parameters": counts.parameters(a),
        "tokens": tokens,
        "flops": {"train": train_flops, "teacher": teacher_flops, "calibration": calibration_flops},
        "parent": parent,
        "tokenizer": tokenizer,
        **more,
    }


def read_card(folder: pathlib.Path) -> Card:
    """The `model.json` of a folder; {} if it has none.

    Raises:
      UserError: the file is damaged.
    """
    file = folder / CARD
    if not file.is_file():
        return {}
    fields = Fields(read_object(file), str(file))
    for key in ("parent", "tokenizer", "stage", "cache"):
        if not isinstance(fields.given(key), str | None):
            raise fields.refusal(key, "a text or null")
    for key in ("tokens", "parameters", "flops_six_n_d"):
        if fields.given(key) is not None:
            fields.number(key)
    flops = Fields(fields.table("flops"), f"{file}: flops")
    for key in flops.values:
        flops.number(key)
    for key in ("architecture", "evaluation", "embedding"):
        fields.table(key)
    merged = fields.given("merged") or []
    if not isinstance(merged, list) or not all(isinstance(path, str) for path in merged):
        raise fields.refusal("merged", "a list of paths")
    card: Any = fields.values
    return card


def parent_path(parent: pathlib.Path, folder: pathlib.Path) -> str:
    """A parent's path as `model.json` in `folder` records it: relative within a workdir, so that a workdir can move."""
    parent, folder = parent.resolve(), folder.resolve()
    workdir = folder.parents[1]
    return os.path.relpath(parent, folder) if parent.is_relative_to(workdir) else str(parent)


def located(parent: str, folder: pathlib.Path) -> pathlib.Path:
    """The resolved path of a parent that `parent_path` has recorded in `folder`."""
    elsewhere = "://" in parent or parent.startswith("/")
    return (place(parent) if elsewhere else folder / parent).resolve()


def noted(path: pathlib.Path, workdir: pathlib.Path) -> str:
    """A path as files of a workdir record it: relative to the workdir, so that they do not depend on its location."""
    path, workdir = path.resolve(), workdir.resolve()
    return str(path.relative_to(workdir)) if path.is_relative_to(workdir) else str(path)
