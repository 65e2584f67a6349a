"""Each step of LLM2Vec on a small bilingual model, beside the un-tuned model, BM25 and the same steps in PyTorch.

    python benchmarks/embedding_steps.py DOCUMENTS TRIPLETS --sts KorSTS=sts-test.tsv \\
        --sts KLUE-STS=klue-sts_dev.json --squad KorQuAD=KorQuAD_v1.0_dev.json [--parts 1] [--seeds 0] [--list]
    python benchmarks/arms.py benchmarks/embedding_steps.jsonl --metric KorSTS KLUE-STS KorQuAD --against base

DOCUMENTS is a folder as `configs/real.py` takes it, TRIPLETS lines of `anchor`, `positive`, `negative` (KorNLI's).
Run it in the repository: models go to `runs/embedding`. Parts:

    base               the model of `configs/ablations/embedding.py:base` as it is: causal, mean of the states
    bidirectional      the same with attention to both sides
    mntp               masked next-token prediction
    simcse             from mntp, texts against themselves under another dropout
    supervised         from mntp, on TRIPLETS
    supervised_direct  from base, on TRIPLETS
    bm25               words (morphemes) of the same 128 tokens
    torch_ARM          mntp, simcse and supervised by `llm2vec_torch.py`, on the same batches

Arms have two seeds, the rest one. A part is the same figures: Spearman of each `--sts`, and nDCG@10 of each `--squad`
(`embedding_tasks.py`). A finished part adds a line to `--output`; the same command resumes.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import numpy as np
import parts

STEPS = ("mntp", "simcse", "supervised")
TORCH = tuple(f"torch_{arm}" for arm in STEPS)
UNTUNED = ("base", "bidirectional")
FOLDER = pathlib.Path("runs/embedding")
EXPERIMENT = parts.Experiment(
    "embedding.py:{arm},{seed}",
    str(FOLDER),
    (*UNTUNED, *STEPS, "supervised_direct", "bm25", *TORCH),
    (
        (
            f"{FOLDER}/base/stage2/model/model.json",
            f"run --config {parts.ABLATIONS}/embedding.py:base --workdir {FOLDER}/base",
        ),
    ),
    seeds=(0, 1),
)
LONGEST, AGREE = 128, 1e-4  # tokens of a text; numbers of vectors by JAX and by torch


def remaining(rows: list[dict]) -> list[tuple[str, int]]:
    """Parts that no row is of; what nothing was trained for, and PyTorch's, have one seed."""
    once = {*UNTUNED, "bm25", *TORCH}
    return [(arm, seed) for arm, seed in parts.remaining(EXPERIMENT, rows) if seed == 0 or arm not in once]


def prepare(documents: str, triplets: str) -> None:
    """Puts what the config reads into `runs/embedding/data`."""
    from embedding_tasks import opened

    from kanana_jax.files import whole_file

    link, file = FOLDER / "data/documents", FOLDER / "data/triplets.jsonl"
    if link.is_symlink() and link.resolve() != pathlib.Path(documents).resolve():
        sys.exit(f"{link} is {link.resolve()}: name that folder, or remove {FOLDER}")
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(pathlib.Path(documents).resolve(), target_is_directory=True)
    if not file.is_file():
        with opened(triplets) as lines, whole_file(file) as temporary:
            temporary.write_text("".join(line for line in lines if line.strip()), encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Sets:
    """What every part is asked.

    Attributes:
      pairs: of sentences (`embedding_tasks.Pairs`), by name.
      passages: with their questions (`retrieval.Set`), by name.
      questions: of each set of passages, at most.
    """

    pairs: Mapping[str, Any]
    passages: Mapping[str, Any]
    questions: int

    @staticmethod
    def read(sts: list[str], squad: list[str], questions: int) -> "Sets":
        """Those of `--sts` and `--squad`."""
        import embedding_tasks as tasks

        pairs = {name: tasks.pairs_of(file, 0) for name, _, file in (value.partition("=") for value in sts)}
        passages = {name: tasks.read(file) for name, _, file in (value.partition("=") for value in squad)}
        return Sets(pairs, passages, questions)

    def sizes(self) -> dict[str, int]:
        """Pairs and questions, by name."""
        found = {name: len(pairs.scores) for name, pairs in self.pairs.items()}
        return found | {name: min(self.questions, len(own.questions)) for name, own in self.passages.items()}


def scores(embedder: Any, sets: Sets) -> dict[str, float]:
    """Spearman and nDCG@10 of an embedding model's vectors."""
    import embedding_tasks as tasks

    model = tasks.Memory(embedder)
    figures = {name: tasks.alike(model, pairs)["cosine_spearman"] for name, pairs in sets.pairs.items()}
    for name, passages in sets.passages.items():
        asked = tasks.drawn(passages, sets.questions, 0)
        figures[name] = tasks.found(model, passages, asked)["ndcg@10"]
    return figures


def untuned(arm: str) -> Any:
    """The base as an embedding model."""
    from kanana_jax.applications.embedder import Embedder

    return Embedder.load(f"{FOLDER}/base/stage2", causal=arm == "base", longest=LONGEST)


def by_words(sets: Sets) -> dict[str, float]:
    """nDCG@10 of BM25 on what the models read of the passages."""
    from embedding_tasks import measured

    from kanana_jax.applications import words

    model, figures = untuned("base"), {}
    for name, passages in sets.passages.items():
        read = [model.tokenizer.decode(one.ids) for one in model.read(passages.texts)]
        cut = passages._replace(texts=read)
        figures[name] = measured(cut, words.morphemes, sets.questions, 0)["ndcg@10"]
    return figures


def by_torch(arm: str, sets: Sets) -> dict[str, float]:
    """Trains a step in PyTorch, from the exported base or the step before it, and scores it."""
    import llm2vec_torch as peer
    from kanana_jax.configs.ablations import embedding

    from kanana_jax import config as config_lib
    from kanana_jax.data.tokens.tokenizer import load_tokenizer
    from kanana_jax.interop import model_folder
    from kanana_jax.models.embedding import Embedding
    from kanana_jax.recipe import config as recipe_config
    from kanana_jax.stages import mntp

    before, exported = embedding.START[arm], FOLDER / "exported"
    if not exported.is_dir():
        model_folder.transfer(FOLDER / "base/stage2", exported, keep_card=False)
    tokenizer = load_tokenizer(exported)
    peer.torch.manual_seed(0)
    model = peer.load(EXPERIMENT.workdir(f"torch_{before}", 0) if before else exported)
    embedder = peer.TorchEmbedder(model.eval(), tokenizer, Embedding(longest=LONGEST))
    if not before:
        _check(embedder, sets)
    recipe, stages = recipe_config.parse(
        config_lib.read_config_file(f"{parts.ABLATIONS}/{EXPERIMENT.config.format(arm=arm, seed=0)}")
    )
    stage: Any = stages[arm]
    token = mntp.mask_id(stage.mask, tokenizer) if stage.kind == "mntp" else 0
    if stage.kind == "contrastive" and stage.dropout:
        peer.add_dropout(model, stage.dropout)
    with batches(recipe, stages, arm) as found:
        losses = peer.train(model, peer.loss_of(stage, token, 0), found, stage.train)
    model.save_pretrained(EXPERIMENT.workdir(f"torch_{arm}", 0))
    return scores(embedder, sets) | {"first_loss": losses[0], "last_losses": float(np.mean(losses[-10:]))}


def _check(embedder: Any, sets: Sets) -> None:
    """Ends where PyTorch's vectors of the un-tuned base are not ours."""
    texts = next(iter(sets.pairs.values())).first[:64]
    apart = np.abs(embedder(texts).values - untuned("bidirectional")(texts).values).max()
    print(f"vectors of PyTorch and of JAX differ by {apart:.1e} at most", flush=True)
    if apart > AGREE:
        sys.exit(f"that is more than {AGREE}: the steps would not start from one model")


@contextlib.contextmanager
def batches(recipe: Any, stages: Mapping[str, Any], arm: str) -> Iterator[Iterator[Any]]:
    """The batches of an arm's stage, as `kanana run` reads them."""
    from kanana_jax.recipe import rows

    found = rows.reading(recipe, dict(stages), arm, EXPERIMENT.workdir(arm, recipe.seed))
    size, start = found.train.batch_size, found.run.position(found.config)
    stream = found.run.stream(arm, found.config, found.encoder, range(size), size, found.train.seq_len, start)
    with contextlib.closing(stream):
        yield iter(lambda: next(stream), None)


def figures_of(arm: str, seed: int, sets: Sets) -> dict[str, float]:
    """Trains a part, if it needs it, and asks it."""
    from kanana_jax.applications.embedder import Embedder

    if arm == "bm25":
        return by_words(sets)
    if arm in UNTUNED:
        return scores(untuned(arm), sets)
    if arm in TORCH:
        return by_torch(arm.removeprefix("torch_"), sets)
    workdir = EXPERIMENT.workdir(arm, seed)
    config = EXPERIMENT.config.format(arm=arm, seed=seed)
    parts.kanana(f"run --config {parts.ABLATIONS}/{config} --workdir {workdir}")
    return scores(Embedder.load(str(workdir / arm), longest=LONGEST), sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="?", default="", metavar="DOCUMENTS")
    parser.add_argument("triplets", nargs="?", default="", metavar="TRIPLETS")
    parser.add_argument("--sts", action="append", default=[], metavar="NAME=FILE", help="pairs; may be repeated")
    parser.add_argument("--squad", action="append", default=[], metavar="NAME=FILE", help="passages; may be repeated")
    parser.add_argument("--questions", type=int, default=1000, metavar="N", help="of each set, at most")
    parser.add_argument("--parts", type=int, default=0, help="at most so many; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these, in a second process once the base is trained")
    parser.add_argument("--list", action="store_true")
    parser.add_argument(
        "--output", type=pathlib.Path, default=parts.ROOT / "benchmarks/embedding_steps.jsonl", metavar="FILE"
    )
    options = parser.parse_args()
    left = [p for p in remaining(parts.read(options.output)) if options.seeds is None or p[1] in options.seeds]
    if options.list:
        print("\n".join(f"{arm} {seed}" for arm, seed in left))
        return
    if not options.triplets or not options.sts or not options.squad:
        parser.error("DOCUMENTS, TRIPLETS, --sts and --squad are needed")
    sets = Sets.read(options.sts, options.squad, options.questions)
    prepare(options.documents, options.triplets)
    for arm, seed in left[: options.parts or None]:
        begun = time.monotonic()
        for made, arguments in EXPERIMENT.before:
            if not pathlib.Path(made).is_file():
                parts.kanana(arguments)
        figures = {name: round(value, 5) for name, value in figures_of(arm, seed, sets).items()}
        row = {"arm": arm, "seed": seed, "figures": figures, "of": sets.sizes()}
        row |= {"seconds": round(time.monotonic() - begun), "date": _today(), "jax": metadata.version("jax")}
        with options.output.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


if __name__ == "__main__":
    main()
