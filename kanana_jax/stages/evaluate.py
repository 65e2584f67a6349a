"""Evaluation of a run's models: benchmarks, calls, answers from documents, best-of-N, rows of the observatory's tables.

DIR/<stage>/answers/NN.json   one model's results; a stopped stage continues after the last of them
DIR/<stage>/best_of_n.json    curves of reward models; best_of_n.samples.jsonl has the answers
DIR/<stage>/evaluation.json   all results, with the cost of each model
DIR/<stage>/observatory/      scores.csv, models.csv, tasks.csv for `kanana observe`
"""

import dataclasses
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

from kanana_jax.applications import call_benchmarks, document_questions
from kanana_jax.data.read import records
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.evaluation import function_calls
from kanana_jax.evaluation.function_calls import Item
from kanana_jax.evaluation.in_training import TasksConfig, asker
from kanana_jax.files import read_json, write_json
from kanana_jax.inference.session import Session
from kanana_jax.interop.lineage import training_cost
from kanana_jax.stages import best_of_n, best_of_n_chapter, evaluation_chapter, score_tables
from kanana_jax.stages.best_of_n import BestOfNConfig
from kanana_jax.stages.kind import Context, Kind, StageConfig

log = logging.getLogger("kanana")
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CallsConfig:
    """Conversations whose last turn the models are asked for.

    Attributes:
      models: stages or folders of the models that are asked.
      sets: name → unseen conversations with functions, in the format that stages are trained on.
      limit: conversations per set.
      batch_size: replies written at a time.
      free: whether each set is also asked without a grammar, to measure what the grammar adds.
    """

    models: tuple[str, ...]
    sets: dict[str, str]
    limit: int = 50
    batch_size: int = 16
    free: bool = False

    def __post_init__(self):
        if not self.models or not self.sets or min(self.limit, self.batch_size) < 1:
            raise ValueError("calls need models, sets, and limit and batch_size of at least 1")


@dataclasses.dataclass(frozen=True)
class DocumentsConfig:
    """Questions about documents, asked with passages that answer them and with others.

    Attributes:
      models: stages or folders of the models that are asked.
      sets: name → unseen documents with questions in `meta.questions`.
      limit: questions per set.
      batch_size: replies written at a time.
    """

    models: tuple[str, ...]
    sets: dict[str, str]
    limit: int = 50
    batch_size: int = 16

    def __post_init__(self):
        if not self.models or not self.sets or min(self.limit, self.batch_size) < 1:
            raise ValueError("documents need models, sets, and limit and batch_size of at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateStage(StageConfig):
    """The section of a stage of this kind.

    Attributes:
      models: stages or folders of models that are asked besides the one that it starts from.
      tasks: benchmarks, as for a stage that trains, but without `every`.
      calls: function calls; None: none.
      best_of_n: gains from a reward model's choices; None: not measured.
      documents: questions about documents; None: none.
    """

    models: tuple[str, ...] = ()
    tasks: TasksConfig
    calls: CallsConfig | None = None
    best_of_n: BestOfNConfig | None = None
    documents: DocumentsConfig | None = None

    def __post_init__(self):
        if self.tasks.every:
            raise ValueError("nothing trains here: leave out tasks.every")
        for key, own in (("calls", self.calls), ("documents", self.documents)):
            unknown = [name for name in (own.models if own else ()) if name not in self.asked]
            if unknown:
                raise ValueError(f"{key}.models names '{unknown[0]}', which is not among the models: add it there")

    @property
    def asked(self) -> tuple[str, ...]:
        """Every model once."""
        return tuple(dict.fromkeys((self.start, *self.models)))

    def references(self) -> dict[str, str]:
        named = {f"models[{i}]": name for i, name in enumerate(self.models)}
        if self.best_of_n is not None:
            named["best_of_n.policy"] = self.best_of_n.policy
            named |= {f"best_of_n.rewards[{i}]": name for i, name in enumerate(self.best_of_n.rewards)}
        return super().references() | named

    def others(self) -> dict[str, str]:
        found = {f"model {i}": name for i, name in enumerate(self.models)}
        if self.best_of_n is not None:
            found["policy"] = self.best_of_n.policy
            found |= {f"reward model {i}": name for i, name in enumerate(self.best_of_n.rewards)}
        return found


def check(config: EvaluateStage) -> None:
    """Refuses to start a run whose evaluation could not run after hours of training.

    Raises:
      UserError: a package that is not installed.
    """
    for package, extra in (("lm_eval", "eval"), *((("llguidance", "calls"),) if config.calls else ())):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"a stage of kind '{config.kind}' needs the package {package}: {install(extra)}, or leave the stage "
                "out of config 'stages'"
            )


def run(name: str, config: EvaluateStage, context: Context) -> None:
    """Asks every model that has not been asked yet, and writes the tables.

    Raises:
      ConfigError, UserError: see `in_training.asker`; a conversation that cannot be asked; a model whose
        tokenizer is not the one it was trained with.
    """
    folder, devices = context.workdir / name, list(context.shapes.mesh.devices.flat)
    if config.best_of_n is not None and read_json(folder / best_of_n_chapter.RESULT) is None:
        best_of_n.measure(name, config.best_of_n, context)
    ask, calls, documents = asker(config.tasks, context.shapes.seed), _calls(config), _documents(config)
    made: dict[str, Json] = {}
    for number, model in enumerate(config.asked):
        file, found = folder / "answers" / f"{number:02d}.json", context.find(model)
        before = read_json(file)
        if before is None:
            log.info("%s: asking %s", name, model)
            session = Session.load(str(found.path), "float32", devices)
            results = ask(session) | calls(model, session) | documents(model, session)
            ancestors = list(context.lineage(model))
            read = {
                "tokens_by_language": score_tables.tokens_by_language(ancestors),
                "from_elsewhere": score_tables.from_elsewhere(ancestors),
            }
            before = {"model": model, **training_cost(found), **read, "results": results}
            write_json(file, before)
        made[model] = before
    score_tables.write(folder / score_tables.FOLDER, context.workdir.name, made)
    write_json(folder / evaluation_chapter.RESULT, {"models": made})


def _documents(config: EvaluateStage) -> Callable[[str, Session], Json]:
    """Name and model → results of its answers from documents, by set."""
    own = config.documents
    if own is None:
        return lambda name, session: {}
    asked, rows = {name: document_questions.items(path, own.limit) for name, path in own.sets.items()}, own.batch_size

    def ask(name: str, session: Session) -> Json:
        if name not in own.models:
            return {}
        return {key: document_questions.evaluate(session, items, batch_size=rows) for key, items in asked.items()}

    return ask


def _calls(config: EvaluateStage) -> Callable[[str, Session], Json]:
    """Name and model → results of its calls by set, and `SET/free` without the grammar."""
    own = config.calls
    if own is None:
        return lambda name, session: {}
    asked = {name: _items(name, path, own.limit) for name, path in own.sets.items()}

    def ask(name: str, session: Session) -> Json:
        if name not in own.models:
            return {}
        found = call_benchmarks.evaluate(session, asked, batch_size=own.batch_size)["results"]
        if own.free:
            free = call_benchmarks.evaluate(session, asked, batch_size=own.batch_size, constrained=False)["results"]
            found |= {f"{key}/free": free[key] for key in asked}
        return found

    return ask


def _items(name: str, path: str, limit: int) -> list[Item]:
    found: list[Item] = []
    for record in records.read(path, source=""):
        if not isinstance(record, dict):
            raise UserError(f"{path}: {record}: fix the line, or remove it")
        found.append(function_calls.of_conversation(record, name))
        if len(found) == limit:
            return found
    if not found:
        raise ConfigError(f"config 'calls.sets.{name}': {path} holds no conversation")
    return found


KIND = Kind(
    "evaluate", EvaluateStage, run, result=evaluation_chapter.RESULT, chapter=evaluation_chapter.CHAPTER, check=check
)
