"""`model.json`: the history of a model, beside its Hugging Face folder."""

import os
import pathlib
from typing import Any, TypedDict, Unpack

from kanana_jax.files import place
from kanana_jax.interop.foreign import Fields, read_object
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture

CARD = "model.json"


class Flops(TypedDict):
    """Exact matmul counts (`models/counts.py`) of the stage that made a model, by what they were spent on."""

    train: float
    teacher: float
    calibration: float


class MoreFlops(Flops, total=False):
    """Those of a stage that samples: of writing its answers, and of the reward model that reads them."""

    sampler: float
    reward: float


class About(TypedDict, total=False):
    """Entries of `model.json` that some stages leave.

    Attributes:
      stage: its name.
      evaluation: its last.
      flops_six_n_d: 6 · parameters · tokens.
      other_tokens: that a sampler has read and written, and a reward model has read, by role.
      cache: folder of the cached teacher that it learned from, see `noted`.
      embedding: how it makes vectors of texts, see `models.embedding.Embedding`.
      merged: paths of the models whose weights were merged, as `parent_path` notes them.
    """

    stage: str
    evaluation: dict[str, Any]
    flops_six_n_d: float
    other_tokens: dict[str, int]
    cache: str
    embedding: dict[str, Any]
    merged: list[str]


class Card(About, TypedDict, total=False):
    """`model.json`: a model's history; a foreign folder has none.

    Attributes:
      tokens: that the stage trained on.
      parent: path of the model that it was made from, see `parent_path`.
      tokenizer: a fingerprint.
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
    """A new `model.json`."""
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
    """The `model.json` of a folder; {} for a foreign one.

    Raises:
      UserError: it is damaged.
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
    """A parent's path as `model.json` in `folder` notes it: relative within a workdir, so that it can be moved."""
    parent, folder = parent.resolve(), folder.resolve()
    workdir = folder.parents[1]
    return os.path.relpath(parent, folder) if parent.is_relative_to(workdir) else str(parent)


def located(parent: str, folder: pathlib.Path) -> pathlib.Path:
    """The place that `parent_path` has noted in `folder`; resolved."""
    elsewhere = "://" in parent or parent.startswith("/")
    return (place(parent) if elsewhere else folder / parent).resolve()


def noted(path: pathlib.Path, workdir: pathlib.Path) -> str:
    """A path as files of a workdir note it: from there on, so that they are the same wherever it lies."""
    path, workdir = path.resolve(), workdir.resolve()
    return str(path.relative_to(workdir)) if path.is_relative_to(workdir) else str(path)
