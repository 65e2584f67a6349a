"""The inputs of a recipe: sources on disk, and a tokenizer."""

import logging
import pathlib

import jax

from kanana_jax.data.read import sources
from kanana_jax.data.tokens.tokenizer import Tokenizer, holds_tokenizer, load_tokenizer
from kanana_jax.data.tokens.training import train_tokenizer
from kanana_jax.parallel import multihost
from kanana_jax.recipe.config import RecipeConfig

log = logging.getLogger("kanana")


def prepare_sources(recipe: RecipeConfig, workdir: pathlib.Path) -> dict[str, sources.PreparedSource]:
    """Every source as shards in `DIR/data/`."""
    cache = workdir / "data"
    if jax.process_index() == 0:
        for name, source in recipe.sources.items():
            sources.prepare(name, source, cache)
    multihost.barrier("sources prepared")
    return {name: sources.load_prepared(name, source, cache) for name, source in recipe.sources.items()}


def tokenizer(recipe: RecipeConfig, prepared: dict[str, sources.PreparedSource], workdir: pathlib.Path) -> Tokenizer:
    """The recipe's tokenizer, copied to or trained in `DIR/tokenizer/`."""
    folder = workdir / "tokenizer"
    if jax.process_index() == 0 and not holds_tokenizer(folder):
        folder.mkdir(exist_ok=True)
        if recipe.tokenizer.path:
            load_tokenizer(recipe.tokenizer.path).save(folder)
        else:
            log.info("training a vocabulary of %d pieces", recipe.tokenizer.vocab_size)
            texts: dict[str, list[sources.PreparedSource]] = {}
            for source in prepared.values():
                texts.setdefault(source.lang, []).append(source)
            train_tokenizer(
                {lang: sources.Texts(tuple(group)) for lang, group in texts.items()}, recipe.tokenizer, folder
            )
    multihost.barrier("tokenizer ready")
    return load_tokenizer(folder)
