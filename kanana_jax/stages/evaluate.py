"""Evaluation of a run's models: benchmarks, calls, answers from documents, best-of-N, rows of the observatory's tables.

DIR/<stage>/answers/NN.json   one model's results; a stopped stage continues after the last of them
DIR/<stage>/answers/NN.samples.jsonl   all its answers; NN.unscored.jsonl if scoring a task failed
DIR/<stage>/best_of_n.json    curves of reward models; best_of_n.samples.jsonl has the answers
DIR/<stage>/evaluation.json   all results, with the cost of each model
DIR/<stage>/observatory/      scores.csv, models.csv, tasks.csv for `kanana observe`
"""

import collections
import dataclasses
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

from kanana_jax.applications import call_benchmarks, document_questions
from kanana_jax.data.read import records
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.evaluation import function_calls, own_sets
from kanana_jax.evaluation.function_calls import Item
from kanana_jax.evaluation.in_training import TasksConfig, asker
from kanana_jax.evaluation.results import Unscored
from kanana_jax.files import read_json, write_json, write_lines
from kanana_jax.inference.session import Session
from kanana_jax.interop.lineage import training_cost
from kanana_jax.stages import best_of_n, best_of_n_chapter, evaluation_chapter, score_tables
from kanana_jax.stages.best_of_n import BestOfNConfig
from kanana_jax.stages.kind import Context, Kind, StageConfig

log = logging.getLogger("kanana")
Json = dict[str, Any]
_NOTHING: Json = {"results": {}, "samples": []}  # of a model that is not asked


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
      max_new_tokens: maximum number of tokens per reply.
    """

    models: tuple[str, ...]
    sets: dict[str, str]
    limit: int = 50
    batch_size: int = 16
    max_new_tokens: int = document_questions.LONGEST

    def __post_init__(self):
        if not self.models or not self.sets or min(self.limit, self.batch_size, self.max_new_tokens) < 1:
            raise ValueError("documents need models, sets, and limit, batch_size and max_new_tokens of at least 1")


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
        self._check_names()

    def _check_names(self) -> None:
        """Refuses two results of one name, of which the report could show only one."""
        calls = [*self.calls.sets, *(f"{name}/free" for name in self.calls.sets)] if self.calls else []
        tasks = [own_sets.name_of(name) if own_sets.is_file(name) else name for name in self.tasks.names]
        names = [*tasks, *calls, *(self.documents.sets if self.documents else ())]
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"'{twice[0]}' names two of tasks, calls.sets and documents.sets: rename one")

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
      ConfigError, UserError: the tasks cannot be loaded, see `in_training.asker`.
    """
    for package, extra in (("lm_eval", "eval"), *((("llguidance", "calls"),) if config.calls else ())):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"a stage of kind '{config.kind}' needs the package {package}: {install(extra)}, or leave the stage "
                "out of config 'stages'"
            )
    asker(config.tasks, seed=0)


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
    session: Session | None
    for number, model in enumerate(config.asked):
        file, found = folder / "answers" / f"{number:02d}.json", context.find(model)
        before = read_json(file)
        if before is None:
            log.info("%s: asking %s", name, model)
            session = None  # so that two models are never in memory
            session = Session.load(str(found.path), "float32", devices)
            kept = file.with_suffix(".unscored.jsonl")
            try:
                answered = [ask(session), calls(model, session), documents(model, session)]
            except Unscored as error:
                write_lines(kept, error.samples)
                raise UserError(f"{error}; {kept} has what {model} answered, without scores") from error
            kept.unlink(missing_ok=True)  # of an earlier start
            write_lines(file.with_suffix(".samples.jsonl"), (line for own in answered for line in own["samples"]))
            results: Json = {}
            for own in answered:
                if twice := results.keys() & own["results"].keys():  # such as a part of a group of tasks
                    raise ConfigError(f"config '{name}': '{min(twice)}' names two results: rename the set of this name")
                results |= own["results"]
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
    """Name and model → results of its answers from documents, by set, and the answers."""
    own = config.documents
    if own is None:
        return lambda name, session: _NOTHING
    asked = {name: document_questions.items(path, own.limit) for name, path in own.sets.items()}
    how = dict(batch_size=own.batch_size, max_new_tokens=own.max_new_tokens)

    def ask(name: str, session: Session) -> Json:
        if name not in own.models:
            return _NOTHING
        found = {key: document_questions.evaluate(session, items, **how) for key, items in asked.items()}
        return {
            "results": {key: own["results"] for key, own in found.items()},
            "samples": [{"task": key, **line} for key, own in found.items() for line in own["samples"]],
        }

    return ask


def _calls(config: EvaluateStage) -> Callable[[str, Session], Json]:
    """Name and model → results of its calls by set, and `SET/free` without the grammar, and the calls."""
    own = config.calls
    if own is None:
        return lambda name, session: _NOTHING
    asked = {name: _items(name, path, own.limit) for name, path in own.sets.items()}

    def ask(name: str, session: Session) -> Json:
        if name not in own.models:
            return _NOTHING
        found = call_benchmarks.evaluate(session, asked, batch_size=own.batch_size)
        results, samples = found["results"], found["samples"]
        if own.free:
            free = call_benchmarks.evaluate(session, asked, batch_size=own.batch_size, constrained=False)
            results |= {f"{key}/free": free["results"][key] for key in asked}
            samples += [line | {"task": f"{line['task']}/free"} for line in free["samples"]]
        return {"results": results, "samples": samples}

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
