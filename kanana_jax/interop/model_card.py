"""Model cards of exported folders: `README.md` with the metadata that hubs read.

A card states only facts that are recorded in files: `model.json` of the model and its ancestors, the data reports and
configs of their workdirs, results of `kanana eval`, and the metadata of the base model's own card. Because cards are
published, paths of this machine are reduced to their last component.
"""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from kanana_jax.errors import UserError
from kanana_jax.files import place, read_json
from kanana_jax.interop.card import Card
from kanana_jax.interop.lineage import lineage
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models import counts

NAME = "README.md"
_DATA, _RUN = "data_report.json", "config.json"
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")  # huggingface_hub's folder of a snapshot
_HUB_DATA = re.compile(r"hf://([\w.-]+/[\w.-]+)")
# An absolute path in an argument, in a list or alone; what closes a quotation or a list may also occur inside a path.
_PATH = re.compile(r"""(^|[=:,\[('"]\s*)((?:~|/(?!/))[^=:,]*?)(?=['")\]]*\s*(?:[=:,]|$))""")
_CODE = re.compile(r"[a-z]{2,3}")  # ISO 639
_MOST_METADATA = 1 << 16  # characters
_PER_CENT = ("chrf", "bleu")
_HELD_OUT = ("bits_per_byte", "answer_loss")  # from a stage's last evaluation; the second is in nats per token


@dataclasses.dataclass(frozen=True)
class Told:
    """Facts that the user states because no file records them.

    Attributes:
      base: name of the base model on its hub.
      licence: licence of the model, as hubs write it (`apache-2.0`).
      results: contents of result files that `kanana eval` has written for this model.
      command: the command that exports the model.
    """

    base: str = ""
    licence: str = ""
    results: Sequence[Mapping[str, Any]] = ()
    command: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class _Facts:
    """Facts about a model and its ancestors (`models`, nearest first)."""

    models: tuple[ModelFolder, ...]
    base: str
    base_on_hub: str
    licence: str
    licence_of_base: bool
    sources: Mapping[str, Mapping[str, Any]]
    addresses: Mapping[str, str]
    scores: Mapping[str, Mapping[str, Any]]
    heldout: Mapping[tuple[str, str], float]
    commands: tuple[str, ...]


def text(found: ModelFolder, title: str, told: Told, library: str = "transformers") -> str:
    """The text of a model card.

    Args:
      found: the model to export.
      title: heading of the card.
      told: facts that the user states.
      library: the library that loads the folder: `transformers`, `sentence-transformers`, or `peft` for adapters.

    Raises:
      UserError: the results are those of another model.
    """
    facts = _facts(found, told)
    head = yaml.safe_dump(_metadata(facts, title, library), allow_unicode=True, sort_keys=False)
    parts = [f"---\n{head}---\n\n# {title}", *_sections(facts)]
    return "\n\n".join(parts) + "\n"


def _facts(found: ModelFolder, told: Told) -> _Facts:
    models = tuple(lineage(found))
    oldest = models[-1]
    lost = oldest.card.get("parent")
    foreign = oldest if not oldest.card else None
    base = _last(lost) if lost else foreign.path.name if foreign else ""
    on_hub = told.base or _hub_name(lost or (str(foreign.path) if foreign else ""))
    declared = _declared_licence(foreign.path) if foreign else ""
    sources, addresses, commands = _from_workdirs(models)
    scores, heldout = _scores(found, told)
    return _Facts(
        models,
        on_hub or base,
        on_hub,
        told.licence or declared,
        bool(declared and not told.licence),
        sources,
        addresses,
        scores,
        heldout,
        (*commands, *([shlex.join(_public(word) for word in told.command)] if told.command else [])),
    )


def _hub_name(path: str) -> str:
    """The name of a model whose folder is in huggingface_hub's cache; empty if it is not."""
    found = _HUB_CACHE.search(path)
    return f"{found[1]}/{found[2]}" if found else ""


def _declared_licence(folder: pathlib.Path) -> str:
    """The licence in the metadata of a folder's own card; empty if there is none."""
    file = folder / NAME
    if not file.is_file():
        return ""
    head = file.read_text(encoding="utf-8", errors="replace")[:_MOST_METADATA]
    if not head.startswith("---\n") or (end := head.find("\n---", 4)) < 0:
        return ""
    try:
        found = yaml.safe_load(head[4:end])
    except (yaml.YAMLError, RecursionError, ValueError):
        return ""
    licence = found.get("license") if isinstance(found, dict) else None
    return licence if isinstance(licence, str) else ""


def _from_workdirs(
    models: Sequence[ModelFolder],
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str], tuple[str, ...]]:
    """Data report of each source, addresses of the public ones, and commands, oldest first.

    A stage's report includes the documents that earlier stages of its workdir have read, so only the nearest report of
    each workdir is used.
    """
    sources: dict[str, Mapping[str, Any]] = {}
    addresses: dict[str, str] = {}
    commands: list[str] = []
    read: set[pathlib.Path] = set()
    for model in models:
        workdir = model.path.parent.parent
        report = read_json(model.path.parent / _DATA) if model.path.name == "model" else None
        if report is None or workdir in read:
            continue
        read.add(workdir)
        used = {name: source for name, source in report.get("sources", {}).items() if source.get("documents")}
        sources = {**used, **sources}
        run = read_json(workdir / _RUN) or {}
        declared = (run.get("config") or {}).get("sources") or {}
        for name in used:
            address = str((declared.get(name) or {}).get("path", ""))
            if "://" in address and address.startswith(("hf://", "microworld://", "seqio://")):
                addresses[name] = address
        if isinstance(command := run.get("command"), str):
            commands.insert(0, shlex.join(_public(word) for word in shlex.split(command)))
    return sources, addresses, tuple(commands)


def _public(word: str) -> str:
    """An argument with each absolute path reduced to its last component; addresses (`hf://…`) are kept."""
    return _PATH.sub(lambda found: found[1] + _last(found[2]), word)


def _scores(found: ModelFolder, told: Told) -> tuple[dict[str, Mapping[str, Any]], dict[tuple[str, str], float]]:
    """Scores by task, and held-out measures by language.

    Result files override the results of stages that evaluate, and these the evaluations during training.
    """
    evaluation = found.card.get("evaluation") or {}
    scores: dict[str, Mapping[str, Any]] = dict(evaluation.get("tasks") or {})
    if found.path.name == "model":
        for file in sorted(found.path.parent.parent.glob("*/evaluation.json")):
            models = (read_json(file) or {}).get("models") or {}
            scores |= (models.get(found.path.parent.name) or {}).get("results") or {}
    for result in told.results:
        path = str((result.get("settings") or {}).get("model", ""))
        if place(path).resolve() not in (found.path.resolve(), found.path.parent.resolve()):
            raise UserError(f"a file of results is of {path}, not of {found.path}: give results of the exported model")
        scores |= result["results"]
    heldout: dict[tuple[str, str], float] = {
        (measure.replace("_", " "), key.removeprefix("lang/")): value
        for measure in _HELD_OUT
        for key, value in sorted((evaluation.get(measure) or {}).items())
        if key.startswith("lang/")
    }
    return scores, heldout


def _metadata(facts: _Facts, title: str, library: str) -> dict[str, Any]:
    languages = sorted({str(source.get("lang")) for source in facts.sources.values()})
    sets = sorted({m[1] for address in facts.addresses.values() if (m := _HUB_DATA.match(address))})
    made = {
        "license": facts.licence,
        "base_model": facts.base_on_hub,
        "language": [code for code in languages if _CODE.fullmatch(code)],
        "datasets": sets,
        "library_name": library,
        "tags": ["kanana-jax"],
        "model-index": _index(facts, title),
    }
    return {key: value for key, value in made.items() if value}


def _index(facts: _Facts, title: str) -> list[dict[str, Any]]:
    """The scores in the format of hubs (`model-index`)."""
    results = []
    for task, result in facts.scores.items():
        metrics = [{"type": name, "value": round(value, 4)} for name, value, _ in _metrics(result)]
        if metrics:
            about = {"name": task, "type": task}
            results.append({"task": {"type": "text-generation"}, "dataset": about, "metrics": metrics})
    return [{"name": title, "results": results}] if results else []


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """Yields metric, value and standard error."""
    for name, value in result.items():
        if isinstance(value, float) and not name.endswith("_stderr"):
            yield name, value, result.get(f"{name}_stderr")


def _sections(facts: _Facts) -> Iterator[str]:
    found = facts.models[0]
    a = found.architecture
    if facts.base:
        shown = f"[{facts.base}](https://huggingface.co/{facts.base})" if facts.base_on_hub else f"`{facts.base}`"
        yield f"Made from {shown}."
    elif facts.models[-1].card.get("stage"):
        yield "Trained from scratch."
    rows = [
        ("parameters", f"{counts.parameters(a):,}"),
        ("layers, width", f"{a.num_layers}, {a.embed_dim}"),
        ("vocabulary", f"{a.vocab_size:,}"),
        ("context", f"{a.max_seq_len:,} tokens"),
    ]
    yield "## Model\n\n" + _table(("", ""), rows)
    if stages := [_stage(model.card) for model in reversed(facts.models) if model.card.get("stage")]:
        yield "## Training\n\nThe stages that led to this model, in order.\n\n" + _table(
            ("stage", "tokens with loss", "FLOPs (6·N·D)"), stages
        )
    if facts.sources:
        yield "## Data\n\nDocuments read by these stages and kept by their filters.\n\n" + _table(
            ("source", "language", "read", "kept", "tokens"), [_source(n, s, facts) for n, s in facts.sources.items()]
        )
    yield from _evaluation(facts)
    if facts.licence:
        whose = " As stated in the base model's card." if facts.licence_of_base else ""
        yield f"## Licence\n\n`{facts.licence}`.{whose}"
    if facts.commands:
        yield "## Commands\n\n```sh\n" + "\n".join(facts.commands) + "\n```"


def _stage(card: Card) -> tuple[str, ...]:
    flops = card.get("flops_six_n_d")
    return card.get("stage", ""), f"{card.get('tokens') or 0:,}", "" if flops is None else f"{flops:.3g}"


def _source(name: str, source: Mapping[str, Any], facts: _Facts) -> tuple[str, ...]:
    shown = f"{name} (`{facts.addresses[name]}`)" if name in facts.addresses else name
    counted = (f"{source.get(key) or 0:,}" for key in ("documents", "kept", "tokens"))
    return shown, str(source.get("lang") or ""), *counted


def _evaluation(facts: _Facts) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    for task, result in facts.scores.items():
        for name, value, error in _metrics(result):
            scale = " (of 100)" if name.partition(",")[0] in _PER_CENT else ""
            asked = (str(result.get(key, "")) for key in ("n", "shots"))
            chat = "yes" if result.get("chat") else ""
            rows.append((task, name + scale, f"{value:.4f}", "" if error is None else f"± {error:.4f}", *asked, chat))
    parts = []
    if rows:
        parts.append(_table(("task", "metric", "value", "standard error", "questions", "shots", "chat"), rows))
    if facts.heldout:
        lines = [(*measured, f"{value:.4f}") for measured, value in facts.heldout.items()]
        parts.append("Held-out text of the last stage:\n\n" + _table(("measure", "language", "value"), lines))
    if parts:
        yield "## Evaluation\n\n" + "\n\n".join(parts)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_line(cells) for cells in (heads, ["---"] * len(heads), *rows))


def _line(cells: Sequence[str]) -> str:
    shown = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(shown)} |"


def _last(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
