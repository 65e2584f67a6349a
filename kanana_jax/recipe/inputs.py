"""The inputs of a recipe: sources on disk, and a tokenizer; prepared by `kanana prepare`, or by the run itself."""

import logging
import pathlib
from collections.abc import Mapping

import jax

from kanana_jax import progress
from kanana_jax.data.read import meter, sources, summary
from kanana_jax.data.tokens.tokenizer import Tokenizer, holds_tokenizer, load_tokenizer
from kanana_jax.data.tokens.training import train_tokenizer
from kanana_jax.parallel import chips, multihost
from kanana_jax.parallel.heartbeat import Preparing
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.stages.kind import ReadingConfig, StageConfig

log = logging.getLogger("kanana")
# Sources below these sizes (bytes, files) are converted faster in one process than others would start.
_FEW_BYTES, _FEW_FILES = 32 << 20, 2000


def prepare(recipe: RecipeConfig, workdir: pathlib.Path, workers: int = 0) -> dict[str, sources.PreparedSource]:
    """Prepares the sources in `DIR/data/`, except those made by stages, and `DIR/tokenizer/`, unless they exist.

    Args:
      workers: processes that convert; 0: one per core, where that pays.
    """
    prepared = _sources(_documents(recipe), workdir, workers)
    _tokenizer(recipe, prepared, workdir)
    return prepared


def prepare_sources(recipe: RecipeConfig, workdir: pathlib.Path) -> dict[str, sources.PreparedSource]:
    """Sources as shards in `DIR/data/`, except those that stages make; written by process 0."""
    return _prepared(_documents(recipe), workdir, "sources prepared")


def made_sources(
    recipe: RecipeConfig, stages: Mapping[str, StageConfig], maker: str, workdir: pathlib.Path
) -> dict[str, sources.PreparedSource]:
    """Sources made from a finished stage's files, as shards in `DIR/data/`; written by process 0.

    Only those that a stage reads: a stage may write no records where none are asked for.

    Args:
      stages: all stages of the recipe, so that a resumed run finds the same sources as an uninterrupted one.
    """
    read = {name for stage in stages.values() if isinstance(stage, ReadingConfig) for name in stage.reads}
    chosen = {name: source for name, source in recipe.sources.items() if source.made_by == maker and name in read}
    return _prepared(chosen, workdir, f"sources of {maker} prepared")


def _prepared(
    chosen: Mapping[str, sources.SourceConfig], workdir: pathlib.Path, what: str
) -> dict[str, sources.PreparedSource]:
    if not chosen:
        return {}
    if jax.process_index() == 0:
        _sources(chosen, workdir, 0)
    multihost.barrier(what)
    return {name: sources.load_prepared(name, source, workdir / "data") for name, source in chosen.items()}


def tokenizer(recipe: RecipeConfig, prepared: dict[str, sources.PreparedSource], workdir: pathlib.Path) -> Tokenizer:
    """The recipe's tokenizer, copied to or trained in `DIR/tokenizer/` by process 0."""
    if jax.process_index() == 0:
        _tokenizer(recipe, prepared, workdir)
    multihost.barrier("tokenizer ready")
    return load_tokenizer(workdir / "tokenizer")


def _documents(recipe: RecipeConfig) -> dict[str, sources.SourceConfig]:
    return {name: source for name, source in recipe.sources.items() if not source.made_by}


def _sources(
    chosen: Mapping[str, sources.SourceConfig], workdir: pathlib.Path, workers: int
) -> dict[str, sources.PreparedSource]:
    alive = Preparing()
    with progress.shown("preparing documents") as update:

        def show(state: meter.Progress) -> None:
            nonlocal last
            if (state.done, state.documents) != last:
                last = (state.done, state.documents)
                alive()
            update(summary.line(state), state.share if state.total else None)

        last = (-1, -1)
        prepared = sources.prepare_all(chosen, workdir / "data", workers or _workers, show, lambda size: alive())
    log.info("%s", summary.table(prepared))
    return prepared


def _workers(files: int, size: int) -> int:
    return chips.cores() if size > _FEW_BYTES or files > _FEW_FILES else 1


def _tokenizer(recipe: RecipeConfig, prepared: Mapping[str, sources.PreparedSource], workdir: pathlib.Path) -> None:
    folder = workdir / "tokenizer"
    if holds_tokenizer(folder):
        return
    folder.mkdir(exist_ok=True)
    if recipe.tokenizer.path:
        load_tokenizer(recipe.tokenizer.path, recipe.tokenizer.add_bos).save(folder)
        return
    log.info("training a vocabulary of %d pieces", recipe.tokenizer.vocab_size)
    Preparing()()
    texts: dict[str, list[sources.PreparedSource]] = {}
    for source in prepared.values():
        texts.setdefault(source.lang, []).append(source)
    train_tokenizer({lang: sources.Texts(tuple(group)) for lang, group in texts.items()}, recipe.tokenizer, folder)
