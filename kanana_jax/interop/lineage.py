"""The ancestors of a model, and the positions of its parts in one of them, over any number of surgeries."""

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
REPORT = "surgery.json"  # beside the model of a stage that cut it


def lineage(folder: ModelFolder) -> Iterator[ModelFolder]:
    """The model and those that it was made from, the nearest first.

    It ends, with a warning, at a model whose parent is not there, or is one of its own descendants.
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
    """The model and all that it was made from, each once: of a merged model, those that were merged, too."""
    yield from itertools.chain.from_iterable(_lines(found))


def _lines(found: ModelFolder) -> Iterator[list[ModelFolder]]:
    """The line of the model, then those of merged ones, each as far as no earlier one has it."""
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
    """A model's size, and the cost of its training by 6·N·D.

    Returns:
      `{"parameters", "tokens", "training_flops", "training_flops_own"}`: `training_flops` has all models that it was
      made from (`made_from`), `training_flops_own` not: stages since it was last cut or grown, as arXiv:2502.18934
      counts. A parent that is not there makes the first too small; it is `missing_parent`.
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
    """The places where a parent may be: beside the model, as cards note it; older ones, from a folder above it."""
    yield located(parent, folder)
    if "://" not in parent and not pathlib.PurePath(parent).is_absolute():
        yield from (above / parent for above in folder.resolve().parents)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Positions of a younger model's parts in an older one.

    Attributes:
      layers: for each layer the old one.
      channels: for each channel of the residual stream the old one; None: the same.
    """

    layers: tuple[int, ...]
    channels: tuple[int, ...] | None


def origin(young: Iterable[ModelFolder], old: Iterable[ModelFolder]) -> Origin:
    """Joins the surgeries that lie between two models.

    Args:
      young, old: each the model and those that it was made from, the nearest first. Both may also go back to a third
        one, where no surgery lies between that and the old one: it has the same layers and channels.

    Raises:
      UserError: no surgery leads from the old model to the young one, or its report lacks what is needed.
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
