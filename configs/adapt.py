"""An existing model, trained further on your documents, then pruned and distilled from itself.

    kanana run --config configs/adapt.py:MODEL,FOLDER --workdir runs/adapted
    kanana run --config configs/adapt.py:MODEL,FOLDER,REPLAY --workdir runs/adapted
    kanana export runs/adapted/adapted exported

`MODEL` is a Hugging Face folder of a supported family (`kanana import --help`). `FOLDER` contains your documents
(`kanana_jax/data/read/folders.py` defines which become a source). `REPLAY` is general text like that of the model's
pre-training: a share of it preserves the model's knowledge. Without `REPLAY` the model is trained on your documents
alone, and the report shows the cost only on your held-out text: keep the run short, or add general text in the model's
main language. Each may be at `gs://…` or `s3://…`.

The tokenizer, its special symbols and the dtype of the weights are the folder's. Lengths, batch and learning rate
follow from the size of the model and of the documents, by the rules below; each can be set on the command line, e.g.
`--config.adapted.train.tokens=2M --config.adapted.train.optimizer.learning_rate=1e-5`. With
`--config.stages=adapted,` nothing is pruned and distilled. On a CPU, `--config.runtime.compute_dtype=float32` is
faster. To check whether it fits a GPU (MODEL needs only its config.json):

    kanana plan --config configs/adapt.py:MODEL,FOLDER --topology rtx4090-1 --memory
"""

import math

from ml_collections import ConfigDict

from kanana_jax.data.read import folders
from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.interop.foreign import read_object
from kanana_jax.models import counts, laws
from kanana_jax.models.architecture import Architecture

# Ibrahim et al. (arXiv:2403.08763) replay 5% of the old text for a weak shift of the data, 25% for another language.
REPLAY = 0.25
# Repeating text up to four times is nearly as good as new text (arXiv:2305.16264).
EPOCHS, BYTES_PER_TOKEN = 4, 4
# Recent open models saw 1 to 36 trillion tokens, which changes the law's learning rate by a third either way.
SEEN_BEFORE = 4e12
PROMPTS = {
    "ko": ("제1조(목적) 이 법은", "대한민국의 수도는"),
    "en": ("The purpose of this Act is", "The capital of France is"),
    "ja": ("第一条 この法律は", "日本の首都は"),
}


def get_config(arg: str = ""):
    given = arg.split(",")
    if len(given) not in (2, 3) or not all(given):
        raise ValueError("give a model folder and a folder of documents: configs/adapt.py:MODEL,FOLDER[,REPLAY]")
    try:
        found = model_folder.find(given[0])
        dtype = _dtype(found)
        own, replayed = _sources(given[1], "own"), _sources(given[2], "replay") if given[2:] else {}
    except UserError as error:
        raise ValueError(str(error)) from error
    a = found.architecture
    c = ConfigDict()
    c.name = "adapt"
    c.seed = 0
    c.tokenizer = dict(path=str(found.path))
    c.sources = ConfigDict({name: source for name, (source, _) in {**own, **replayed}.items()}, sort_keys=False)
    weights = _mixture(own, replayed)
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1, slices=1)
    large = counts.parameters(a) >= 500e6
    c.runtime = dict(
        param_dtype="float32" if dtype == "float32" else "bfloat16",
        compute_dtype="bfloat16",
        attention="auto",
        scan_layers=True,
        remat="full" if large else "none",
    )
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=40_000, batch_size=8)
    langs = sorted({source["lang"] for source in c.sources.values()})
    c.samples = dict(prompts={k: v for k, v in PROMPTS.items() if k in langs} or PROMPTS, max_new_tokens=64)
    c.stages = ("adapted", "pruned", "student")
    size = sum(size for _, size in own.values())
    tokens = max(int(size / BYTES_PER_TOKEN * EPOCHS / (1 - REPLAY * bool(replayed))), 1000)
    train = _train(a, tokens)
    c.adapted = dict(kind="pretrain", start=given[0], mixture=weights, train=train)
    c.pruned = dict(
        kind="prune",
        start="adapted",
        mixture=weights,
        prune=dict(
            shape=_smaller(a), seq_len=train["seq_len"], importance=dict(samples=256, batch_size=4 if large else 16)
        ),
    )
    healed = _train(a, tokens, warmup=0.05)
    c.student = dict(
        kind="distill",
        start="pruned",
        mixture=weights,
        distill=dict(teacher="adapted", dtype="float32" if dtype == "float32" else "bfloat16"),
        train=healed,
    )
    return c


def _dtype(found: model_folder.ModelFolder) -> str:
    """Of the weights; of a folder that has none (to plan for), what its config.json says."""
    if any(found.path.glob("*.safetensors")):
        return model_folder.open_weights(found, headers_only=True).dtype
    said = read_object(found.path / "config.json")
    return str(said.get("dtype") or said.get("torch_dtype") or "float32")


def _sources(folder: str, prefix: str) -> dict[str, tuple[dict, int]]:
    """Name → (source, bytes), by `folders.groups`."""
    return {
        f"{prefix}_{name}": (dict(path=g.path, lang=g.lang, among=g.among, holdout=_held(g.bytes)), g.bytes)
        for name, g in folders.groups(folder).items()
    }


def _held(size: int) -> float:
    """A share of documents that gives an evaluation text to read, and leaves nearly all to train on."""
    return min(max(200_000 / max(size, 1), 0.01), 0.1)


def _mixture(own: dict[str, tuple[dict, int]], replayed: dict[str, tuple[dict, int]]) -> dict[str, float]:
    """Shares by size: of the own documents, and of the replay within its share."""
    weights = {}
    for group, share in ((own, 1 - REPLAY * bool(replayed)), (replayed, REPLAY)):
        total = sum(size for _, size in group.values())
        weights |= {name: round(share * size / total, 6) for name, (_, size) in group.items()}
    return weights


def _train(a: Architecture, tokens: int, warmup: float = 0.01) -> dict:
    """The training settings of a model of this size for a number of tokens.

    The learning rate is re-warmed and decays again (arXiv:2403.08763: warm-up over 1% of the steps, whose length
    matters little, to the peak of pre-training, and a cosine to a tenth of it). Folders do not say that peak: it is
    taken from DeepSeek LLM's law (arXiv:2401.02954, §3.1) for this shape and `SEEN_BEFORE` tokens, and multiplied by
    the root of this batch over the law's (Adam's square-root rule, arXiv:2205.10782).
    """
    size = counts.parameters(a)
    seq_len = min(512 if size < 500e6 else 2048 if size < 3e9 else 4096, a.max_seq_len)
    law = laws.recommend(a, SEEN_BEFORE, seq_len)
    # A thousand updates where the documents are enough, 8 rows at least, the law's batch at most.
    rows = 2 ** int(math.log2(min(max(tokens / 1000, 8 * seq_len), law.batch_tokens) / seq_len))
    batch = rows * seq_len
    steps = -(-tokens // batch)
    return dict(
        tokens=tokens,
        batch_tokens=batch,
        seq_len=seq_len,
        accumulate=max(rows // 8, 1),
        optimizer=dict(
            learning_rate=float(f"{law.learning_rate * min(math.sqrt(batch / law.batch_tokens), 1):.2g}"),
            weight_decay=1e-4,
            schedule=dict(kind="cosine", warmup_steps=max(int(warmup * steps), min(10, steps)), final=0.1),
        ),
        log_every=max(min(10, steps // 20), 1),
        eval_every=max(steps // 5, 1),
        checkpoint=dict(every=max(steps // 5, 1), keep_last=1, keep_best=0),
    )


def _smaller(a: Architecture) -> dict[str, int]:
    """Three quarters of the width and two thirds of the MLP: width alone, as Kanana (arXiv:2502.18934, §2.3)."""
    unit = 64 if a.embed_dim >= 512 else 4
    return dict(embed_dim=a.embed_dim * 3 // 4 // unit * unit, mlp_dim=a.mlp_dim * 2 // 3 // unit * unit)
