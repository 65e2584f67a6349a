"""The ancestors of a model, and the layers and channels that it has kept from one, over any number of surgeries."""

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.files import read_json
from kanana_jax.interop.card import CARD, located
from kanana_jax.interop.model_folder import ModelFolder, find
from kanana_jax.models import counts

log = logging.getLogger("kanana")
REPORT = "surgery.json"  # in the folder of a stage that cut the model


def lineage(folder: ModelFolder) -> Iterator[ModelFolder]:
    """The model and its ancestors, nearest first.

    The line ends, with a warning, at a model whose parent does not exist or is its own descendant.
    """
    seen: set[pathlib.Path] = set()
    while True:
        seen.add(folder.path.resolve())
        yield folder
        parent = folder.card.get("parent")
        if not parent:
            return
        there = next((place for place in _places(folder.path, parent) if (place / "config.json").is_file()), None)
        if there is None:
            log.warning("%s: its parent %s does not exist: its origin is unknown", folder.path, parent)
            return
        if there.resolve() in seen:
            log.warning("%s: its parent %s is its own descendant: correct 'parent' there", folder.path / CARD, parent)
            return
        folder = find(there)


def made_from(found: ModelFolder) -> Iterator[ModelFolder]:
    """The model and all its ancestors without repeats, including the models that were merged into any of them."""
    yield from itertools.chain.from_iterable(_lines(found))


def _lines(found: ModelFolder) -> Iterator[list[ModelFolder]]:
    """The model's line of ancestors, then those of merged models, each up to the first model that was seen before."""
    seen: set[pathlib.Path] = set()
    left = [found]
    while left:
        own = []
        for model in lineage(left.pop(0)):
            if model.path.resolve() in seen:
                break
            own.append(model)
        seen.update(model.path.resolve() for model in own)
        yield own
        for model in own:
            places = (next(_places(model.path, path)) for path in model.card.get("merged") or ())
            left += [find(place) for place in places if (place / "config.json").is_file()]


def training_cost(found: ModelFolder) -> dict[str, Any]:
    """A model's size, and the cost of its training as 6·N·D.

    Returns:
      `{"parameters", "tokens", "training_flops", "training_flops_own"}`. `training_flops` includes all ancestors
      (`made_from`); `training_flops_own` only the stages since the model was last cut or grown, as arXiv:2502.18934
      counts. If a parent does not exist, `training_flops` is too small, and `missing_parent` holds the parent's path.
    """
    lines = list(_lines(found))
    models = [model for line in lines for model in line]
    alike = (itertools.takewhile(lambda model: model.architecture == found.architecture, line) for line in lines)
    own = [model for line in alike for model in line]
    about: dict[str, Any] = {
        "parameters": counts.parameters(found.architecture),
        "tokens": found.card.get("tokens"),
    }
    for key, those in (("training_flops", models), ("training_flops_own", own)):
        costs = [model.card.get("flops_six_n_d") for model in those]
        about[key] = sum(cost or 0.0 for cost in costs) if any(costs) else None
    missing = list(lineage(found))[-1].card.get("parent")
    return {**about, **({"missing_parent": missing} if missing else {})}


def _places(folder: pathlib.Path, parent: str) -> Iterator[pathlib.Path]:
    """Paths at which a parent may be: relative to the model; for older cards, relative to a folder above it."""
    yield located(parent, folder)
    if "://" not in parent and not pathlib.PurePath(parent).is_absolute():
        yield from (above / parent for above in folder.resolve().parents)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The layers and channels of an older model that a younger one descends from.

    Attributes:
      layers: for each layer of the younger model, the index of the older model's layer.
      channels: the same for channels of the residual stream; None: all channels were kept.
    """

    layers: tuple[int, ...]
    channels: tuple[int, ...] | None


def origin(young: Iterable[ModelFolder], old: Iterable[ModelFolder]) -> Origin:
    """Composes the surgeries that lead from an older model to a younger one.

    Args:
      young, old: each model followed by its ancestors, nearest first. The younger model may also descend from an
        ancestor of the older one, if no surgery lies between that ancestor and the older model.

    Raises:
      UserError: no surgery leads from the older model to the younger one, or a report does not say what was kept.
    """
    same = []
    for model in old:
        same.append(model.path.resolve())
        if _report(model) is not None:
            break
    young = list(young)
    found = Origin(tuple(range(young[0].architecture.num_layers)), None)
    for model in young:
        if model.path.resolve() in same:
            return found
        report = _report(model)
        if report is not None:
            found = _joined(found, report, model)
    raise UserError(
        f"hidden states cannot be compared: no {REPORT} leads from {same[0]} to {young[0].path}, so it is unknown "
        "which layers and channels correspond: leave out 'hidden', or prune the student from its teacher"
    )


def _report(model: ModelFolder) -> dict | None:
    return read_json(model.path.parent / REPORT)


def _joined(found: Origin, report: dict, model: ModelFolder) -> Origin:
    if "channels" not in report:
        raise UserError(
            f"{model.path.parent / REPORT} was written by an older version and does not say which channels were kept: "
            "remove that stage and let 'kanana run' make it again"
        )
    kept, channels = report["channels"], found.channels
    if kept is not None:
        channels = tuple(kept) if channels is None else tuple(kept[i] for i in channels)
    return Origin(tuple(report["layers"][i] for i in found.layers), channels)
