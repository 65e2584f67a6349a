"""A kind of stage: the record that every file of this folder fills in, and the protocol of a stage's context.

A recipe is a list of stages. `recipe`, `plan` and the report know a stage by its `Kind` alone; `stages/__init__.py`
lists the existing kinds. A kind has a config section, makes a model of a certain shape, may train it (as programs on
shapes, which a run feeds with arrays and a plan with shapes only), and has a chapter in the report.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data import filters
from kanana_jax.data.stream.encode import Encoder, TextEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.lanes import Position
from kanana_jax.data.stream.pipeline import BatchStream
from kanana_jax.data.tokens.tokenizer import Tokenizer, holds_tokenizer, load_tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.evaluation.in_training import TasksConfig
from kanana_jax.inference.sampling import SamplesConfig
from kanana_jax.interop import model_folder
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.report.page import Chapter
from kanana_jax.training.heldout import EvaluationConfig
from kanana_jax.training.loop import Ahead
from kanana_jax.training.metrics import Writer
from kanana_jax.training.task import Questions, TrainConfig

SCRATCH = "scratch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The values that every stage has; a kind's own config adds its sections.

    Attributes:
      kind: a name in `stages.KINDS`.
      start: `scratch`, the name of an earlier stage, or a model folder.
    """

    kind: str
    start: str = SCRATCH

    def references(self) -> dict[str, str]:
        """The stages or folders that must exist before this one, by config key."""
        return {} if self.start == SCRATCH else {"start": self.start}

    def others(self) -> dict[str, str]:
        """The stages or folders whose models run beside the trained one, by role (`teacher`)."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingConfig(StageConfig):
    """The values of a stage that reads documents.

    Attributes:
      mixture: weights of the sources, as shares of tokens.
      select: source → further rules for its documents in this stage, such as those of a high-quality slice.
      data_after: the stage whose position in the sources this one continues; empty: the nearest ancestor with one.
    """

    mixture: dict[str, float] = dataclasses.field(default_factory=dict)
    select: dict[str, dict[str, filters.Rule]] = dataclasses.field(default_factory=dict)
    data_after: str = ""

    def __post_init__(self):
        if not self.mixture:
            raise ValueError(f"a stage of kind '{self.kind}' needs a mixture")

    @property
    def reads(self) -> frozenset[str]:
        """Sources with a weight above zero."""
        return frozenset(source for source, weight in self.mixture.items() if weight)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The part of a stage's context that needs no arrays, and determines the programs of a stage.

    Attributes:
      seed: the recipe's seed.
      runtime: runtime of models that are trained.
      mesh: mesh that stages run on.
      stages: configs of the stages, by name.
      architecture: returns the architecture of a stage's model, or of the model in a folder.
    """

    seed: int
    runtime: Runtime
    mesh: Mesh
    stages: Mapping[str, StageConfig]
    architecture: Callable[[str], Architecture]

    def model(self, architecture: Architecture, seq_len: int, runtime: Runtime | None = None) -> Model:
        """A model with the attention that this mesh's chips run."""
        platform = self.mesh.devices.flat[0].platform
        return Model.on(platform, architecture, runtime or self.runtime, seq_len)


class Context(Protocol):
    """The environment of a running stage; `recipe/context.py` makes it.

    Attributes:
      shapes: the part that needs no arrays.
      tokenizer: the recipe's tokenizer.
      workdir: the folder with one folder per stage.
      evaluation, samples: sections of the recipe.
      lanes: number of lanes in the stream of rows.
      ahead: steps that are already being compiled, by stage.
    """

    @property
    def shapes(self) -> Shapes: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def workdir(self) -> pathlib.Path: ...

    @property
    def evaluation(self) -> EvaluationConfig: ...

    @property
    def samples(self) -> SamplesConfig: ...

    @property
    def lanes(self) -> int: ...

    @property
    def ahead(self) -> Mapping[str, Ahead]: ...

    def find(self, name: str) -> ModelFolder:
        """The model of a stage or in a folder."""
        ...

    def lineage(self, name: str) -> Iterator[ModelFolder]:
        """The model of a stage or in a folder, followed by its ancestors, the nearest first."""
        ...

    def load(self, folder: ModelFolder, model: Model, mesh: Mesh | None = None) -> Params:
        """The parameters in a folder, in the dtype of the model that runs them, on a mesh (default: the stages')."""
        ...

    def ask(self, tasks: TasksConfig, model: Model) -> Questions:
        """Benchmarks that run while a model trains.

        Raises:
          ConfigError, UserError: see `evaluation/in_training.py`.
        """
        ...

    def writers(self, folder: pathlib.Path, from_step: int) -> list[Writer]:
        """The writers of a stage besides the engine's own: experiment trackers, and the report while it trains."""
        ...

    def position(self, config: ReadingConfig) -> Position | None:
        """The position in the sources after `data_after`; if empty, after the nearest ancestor that read any."""
        ...

    def stream(
        self,
        name: str,
        config: ReadingConfig,
        encoder: Encoder,
        rows: Sequence[int] | np.ndarray,
        batch_size: int,
        seq_len: int,
        start: Position | None,
    ) -> BatchStream:
        """The batches of a stage's mixture; see `pipeline.BatchStream`."""
        ...

    def heldout(self, encoder: Encoder, seq_len: int, config: ReadingConfig | None = None) -> list[HeldoutRows]:
        """Evaluation rows from every source that holds out documents.

        With a stage's `config`, conversations, pairs and prompts come only from the sources that the stage reads, or
        that no stage reads (`heldout_rows`).
        """
        ...

    def data_report(self, position: Position) -> dict[str, Any]:
        """`data_report.json`: documents seen, kept and dropped, by rule and source."""
        ...

    def about_rows(self, name: str, config: ReadingConfig) -> dict[str, Any]:
        """Everything that determines which rows a stage reads, by config key."""
        ...


def check_text(
    name: str,
    context: Context,
    architecture: Architecture,
    found: ModelFolder | None,
    key: str,
    seq_len: int,
    who: str = "model",
) -> None:
    """Refuses a model or teacher that cannot read a stage's rows.

    Args:
      found: the folder of the model; None: it is newly initialised.
      key, seq_len: config key of the rows' length, and its value.

    Raises:
      ConfigError: a vocabulary smaller than the tokenizer's, another tokenizer, or a shorter length.
      UserError: the folder's own tokenizer is damaged.
    """
    tokenizer = context.tokenizer
    if architecture.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"stage '{name}': the {who}'s vocab_size is {architecture.vocab_size}, but the tokenizer has "
            f"{tokenizer.vocab_size} tokens: a {who} must have a row for each (and may have more, as padded ones do)"
        )
    known = None if found is None else _tokenizer_of(found, tokenizer)
    if known is not None and known != tokenizer.fingerprint:
        raise ConfigError(
            f"stage '{name}': the {who} was trained with another tokenizer ({known[:12]}…, the recipe's is "
            f"{tokenizer.fingerprint[:12]}…): set config 'tokenizer.path' to the {who}'s folder"
        )
    check_length(name, architecture, key, seq_len, who)


def _tokenizer_of(found: ModelFolder, expected: Tokenizer) -> str | None:
    """The fingerprint of the tokenizer that a model was trained with: known from its history or its own files."""
    noted = found.card.get("tokenizer")
    if noted == expected.fingerprint or not holds_tokenizer(found.path):
        return noted
    own = load_tokenizer(found.path).fingerprint
    return own if noted is None or own == expected.fingerprint else noted


def check_length(name: str, architecture: Architecture, key: str, seq_len: int, who: str = "model") -> None:
    """Raises ConfigError if rows of `seq_len` tokens (config `key`) are beyond a model's length."""
    if seq_len > architecture.max_seq_len:
        raise ConfigError(
            f"config '{name}.{key}' is {seq_len}, beyond the {who}'s max_seq_len {architecture.max_seq_len}"
        )


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to be compiled.

    Attributes:
      name: `step`, or the name of another model, which runs before it on its own mesh.
      function: the jitted function.
      arguments: shapes with shardings, by name.
      mesh: the mesh that it is compiled for.
      holds: bytes per device that it keeps while it runs, by name; part of its temporaries.
    """

    name: str
    function: Any
    arguments: dict[str, Any]
    mesh: Mesh
    holds: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def trace(self) -> Any:
        with jax.set_mesh(self.mesh):
            return self.function.trace(*self.arguments.values())


@dataclasses.dataclass(frozen=True)
class StagePrograms:
    """A training stage on a mesh, ready to be compiled.

    Attributes:
      train: its length and batches.
      model: the model that it trains.
      others: architectures of its other models, by role (`teacher`).
      flops_per_token: exact and causal, of training and of the other models.
      resident: bytes per device that stay allocated, by kind: parameters, optimizer, other models.
      batch_bytes: bytes per device of the batches that a step reads.
      programs: the programs in the order in which they run; the step is the last.
      about: other values that the programs depend on; JSON-safe.
    """

    name: str
    kind: str
    train: TrainConfig
    model: Model
    others: Mapping[str, Architecture]
    mesh: Mesh
    flops_per_token: float
    resident: dict[str, int]
    batch_bytes: int
    programs: tuple[Program, ...]
    about: dict[str, Any]

    @property
    def step(self) -> Program:
        return self.programs[-1]


def device_bytes(tree: Any) -> int:
    """The bytes per device of a tree of sharded shapes."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


Config = TypeVar("Config", bound=StageConfig)


def same_shape(name: str, config: StageConfig, before: Architecture | None) -> Architecture:
    """The architecture of a stage without surgery: that of its model section, or of the model that it starts from."""
    del name
    made = before if before is not None else getattr(config, "model", None)
    assert made is not None  # parsing refuses a config with neither
    return made


@dataclasses.dataclass(frozen=True)
class Kind(Generic[Config]):
    """A kind of stage.

    Attributes:
      name: the value of `kind` in a stage's section.
      config: the dataclass of its section.
      run: `(name, config, context)`: runs a stage to its end, resuming where it was stopped.
      result: the file in the stage's folder whose existence marks it as finished.
      records: files of records in the stage's folder, which may be sources of later stages (`SourceConfig.made_by`).
      free: keys of the section that may change between two starts.
      decisive: section → the keys of `free` that may not change, since other values of the section make them matter.
      architecture: `(name, config, before) → after`: that of the resulting model; `before` is None from scratch.
      programs: `(name, config, shapes)`: the programs that it compiles; None if it trains nothing that can be planned.
      encoder: `(config, tokenizer)`: makes the sequences that it trains on.
      chapter: its chapter of the report.
      check: refuses a config that this machine cannot run (a missing package), before anything runs.
    """

    name: str
    config: type[Config]
    run: Callable[[str, Config, Context], None]
    result: str = f"model/{model_folder.CARD}"
    records: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    decisive: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda section: ()
    architecture: Callable[[str, Config, Architecture | None], Architecture] = same_shape
    programs: Callable[[str, Config, Shapes], StagePrograms] | None = None
    encoder: Callable[[Config, Tokenizer], Encoder] = lambda config, tokenizer: TextEncoder(tokenizer)
    chapter: Chapter | None = None
    check: Callable[[Config], None] = lambda config: None

    def free_in(self, section: Mapping[str, Any]) -> tuple[str, ...]:
        """The keys of a stage's section that may change between two starts."""
        return tuple(key for key in self.free if key not in self.decisive(section))
