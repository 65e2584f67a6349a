"""An existing model, trained further on your documents, then pruned and distilled from itself.

    kanana run --config configs/adapt.py:MODEL,FOLDER --workdir runs/adapted
    kanana run --config configs/adapt.py:MODEL,FOLDER,REPLAY --workdir runs/adapted
    kanana export runs/adapted/adapted exported

`MODEL` is a Hugging Face folder of a supported family (`kanana import --help`). `FOLDER` contains your documents
(`kanana_jax/data/read/folders.py` defines which become a source). `REPLAY` is general text like that of the model's
pre-training: a share of it preserves the model's knowledge. Without `REPLAY` the model is trained on your documents
alone, and the report shows the cost only on your held-out text: keep the run short, or add general text in the model's
main language. Each may be at `gs://…` or `s3://…`.

Conversations and pairs of answers among your documents (`.jsonl` and the like, forms: docs/alignment.md) are not used
for pre-training. The model is fine-tuned on the conversations, with a share of the text so that it forgets less (stage
`sft`), and then trained to prefer the chosen answers (stage `dpo`). MODEL must have a chat template. To train adapters
instead of all weights:

    kanana run --config configs/adapt.py:MODEL,FOLDER --workdir runs/adapted --config.stages=sft,dpo \\
        --config.sft.start=MODEL --config.sft.lora.rank=16 --config.dpo.lora.rank=16

The tokenizer, its special tokens and the dtype of the weights are those of MODEL. Training lengths, batch sizes and
learning rates follow from the sizes of the model and of the documents, by the rules below; each can be set on the
command line, e.g. `--config.adapted.train.tokens=2M --config.adapted.train.optimizer.learning_rate=1e-5`. With
`--config.stages=adapted,` pruning and distillation are skipped. On a CPU, `--config.runtime.compute_dtype=float32` is
faster. To check whether the run fits a GPU (MODEL needs only its config.json):

    kanana plan --config configs/adapt.py:MODEL,FOLDER --topology rtx4090-1 --memory
"""

import math

from kanana_jax.configs import dpo, sft
from ml_collections import ConfigDict

from kanana_jax.data.read import folders
from kanana_jax.data.read.record import Form
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.interop.foreign import read_object
from kanana_jax.models import counts, laws
from kanana_jax.models.architecture import Architecture

# Ibrahim et al. (arXiv:2403.08763) replay 5% of the old data for a weak distribution shift and 25% for a new language.
REPLAY = 0.25
# The share of text among conversations: 5%, as for a weak shift.
SFT_REPLAY = 0.05
# stage: (epochs, tokens per row, learning rate). Epochs as in Tülu 3 (arXiv:2411.15124); rates of configs/sft.py and
# configs/dpo.py, for full fine-tuning.
ALIGNED = {"sft": (2, sft.SEQ_LEN, 2e-5), "dpo": (1, dpo.SEQ_LEN, 5e-7)}
# Repeating text up to four times is nearly as good as new text (arXiv:2305.16264).
EPOCHS, BYTES_PER_TOKEN = 4, 4
# Assumed pre-training tokens. Recent open models saw 1 to 36 trillion; within that range the law's learning rate
# changes by at most a third either way.
SEEN_BEFORE = 4e12
LARGE = 500e6  # parameters
# Name → (source, bytes).
Group = dict[str, tuple[dict, int]]
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
        found_own, replayed = _sources(given[1], "own"), _sources(given[2], "replay")["text"] if given[2:] else {}
        own, talks, pairs = (found_own[form] for form in ("text", "messages", "chosen"))
        if talks or pairs:  # report a missing chat template now, not after hours of training
            chat.encode_chat(load_tokenizer(found.path), [{"role": "user", "content": "?"}])
    except UserError as error:
        raise ValueError(str(error)) from error
    a = found.architecture
    c = ConfigDict()
    c.name = "adapt"
    c.seed = 0
    c.tokenizer = dict(path=str(found.path))
    c.sources = ConfigDict(
        {name: source for name, (source, _) in {**own, **replayed, **talks, **pairs}.items()}, sort_keys=False
    )
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1, slices=1)
    large = counts.parameters(a) >= LARGE
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
    c.stages = ()
    if own:
        _on_text(c, given[0], a, own, replayed, dtype)
    aligned = _align(c, "adapted" if own else given[0], a, {**own, **replayed}, talks, pairs)
    c.stages = (*c.stages[:1], *aligned, *c.stages[1:])
    return c


def _on_text(c: ConfigDict, model: str, a: Architecture, own: Group, replayed: Group, dtype: str) -> None:
    """Adds the stages for plain text: continued pre-training, pruning and distillation."""
    large, weights = counts.parameters(a) >= LARGE, _mixture(own, replayed, REPLAY)
    size = sum(size for _, size in own.values())
    tokens = max(int(size / BYTES_PER_TOKEN * EPOCHS / (1 - REPLAY * bool(replayed))), 1000)
    train = _train(a, tokens)
    c.stages = ("adapted", "pruned", "student")
    c.adapted = dict(kind="pretrain", start=model, mixture=weights, train=train)
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


def _align(c: ConfigDict, start: str, a: Architecture, text: Group, talks: Group, pairs: Group) -> tuple[str, ...]:
    """Adds stages for the conversations and for the pairs, if there are any, and returns the stages' names."""
    stages = []
    for kind, group in (("sft", talks), ("dpo", pairs)):
        if not group:
            continue
        replay = text if kind == "sft" else {}
        size, (epochs, seq_len, rate) = sum(size for _, size in group.values()), ALIGNED[kind]
        tokens = max(int(size / BYTES_PER_TOKEN * epochs / (1 - SFT_REPLAY * bool(replay))), 1000)
        own = dict(replay=True) if replay else dict(preference=dict(loss="sigmoid", beta=0.1)) if kind == "dpo" else {}
        c[kind] = dict(
            kind=kind,
            start=stages[-1] if stages else start,
            mixture=_mixture(group, replay, SFT_REPLAY),
            **own,
            train=_aligned(a, tokens, min(seq_len, a.max_seq_len), rate),
        )
        stages.append(kind)
    return tuple(stages)


def _dtype(found: model_folder.ModelFolder) -> str:
    """The dtype of the weights, or the one in config.json if the folder has no weights (for `kanana plan`)."""
    if any(found.path.glob("*.safetensors")):
        return model_folder.open_weights(found, headers_only=True).dtype
    said = read_object(found.path / "config.json")
    return str(said.get("dtype") or said.get("torch_dtype") or "float32")


def _sources(folder: str, prefix: str) -> dict[Form, Group]:
    """Form of record → source name → (source, bytes), from `folders.groups`, except records that are only prompts."""
    found: dict[Form, Group] = {"text": {}, "messages": {}, "chosen": {}}
    for name, g in folders.groups(folder).items():
        forms = folders.forms(g)
        several = "messages" in forms or "chosen" in forms
        for form, suffix in (("text", ""), ("messages", "_chat"), ("chosen", "_pairs")) if several else (("text", ""),):
            if several and form not in forms:
                continue
            # Several sources read the same files: each is credited with its form's share of the bytes.
            size = g.bytes * forms[form] // sum(forms.values()) if several else g.bytes
            source = dict(path=g.path, lang=g.lang, among=g.among, holdout=_held(size))
            found[form][f"{prefix}_{name}{suffix}"] = source | (dict(form=form) if several else {}), size
    return found


def _held(size: int) -> float:
    """The share of documents to hold out: about 200 kB for evaluation, between 1% and 10%."""
    return min(max(200_000 / max(size, 1), 0.01), 0.1)


def _mixture(own: Group, replayed: Group, replay: float) -> dict[str, float]:
    """Source weights by size: own documents share `1 - replay`, replayed text shares `replay`."""
    weights = {}
    for group, share in ((own, 1 - replay * bool(replayed)), (replayed, replay)):
        total = sum(size for _, size in group.values())
        weights |= {name: round(share * size / total, 6) for name, (_, size) in group.items()}
    return weights


def _aligned(a: Architecture, tokens: int, seq_len: int, learning_rate: float) -> dict:
    """Training settings for conversations or pairs: 8 to 32 rows per batch, aiming at a hundred updates."""
    rows = 2 ** int(math.log2(min(max(tokens / 100 / seq_len, 8), 32)))
    return _settings(tokens, rows, seq_len, learning_rate, decay=0.0, warmup=0.1)


def _train(a: Architecture, tokens: int, warmup: float = 0.01) -> dict:
    """Training settings of continued pre-training for a model of this size on this number of tokens.

    The learning rate is re-warmed to the peak of pre-training over 1% of the steps (the length matters little) and
    decays by a cosine to a tenth of the peak (arXiv:2403.08763). Model folders do not state that peak. It is taken from
    DeepSeek LLM's law (arXiv:2401.02954, §3.1) for this shape and `SEEN_BEFORE` tokens, and multiplied by the square
    root of this batch size over the law's (Adam's square-root rule, arXiv:2205.10782).
    """
    size = counts.parameters(a)
    seq_len = min(512 if size < LARGE else 2048 if size < 3e9 else 4096, a.max_seq_len)
    law = laws.recommend(a, SEEN_BEFORE, seq_len)
    # Aim at a thousand updates, with a batch of at least 8 rows and at most the law's batch.
    rows = 2 ** int(math.log2(min(max(tokens / 1000, 8 * seq_len), law.batch_tokens) / seq_len))
    rate = law.learning_rate * min(math.sqrt(rows * seq_len / law.batch_tokens), 1)
    return _settings(tokens, rows, seq_len, rate, decay=1e-4, warmup=warmup)


def _settings(tokens: int, rows: int, seq_len: int, rate: float, decay: float, warmup: float) -> dict:
    steps = -(-tokens // (rows * seq_len))
    return dict(
        tokens=tokens,
        batch_tokens=rows * seq_len,
        seq_len=seq_len,
        accumulate=max(rows // 8, 1),
        optimizer=dict(
            learning_rate=float(f"{rate:.2g}"),
            weight_decay=decay,
            schedule=dict(kind="cosine", warmup_steps=max(int(warmup * steps), min(10, steps)), final=0.1),
        ),
        log_every=max(min(10, steps // 20), 1),
        eval_every=max(steps // 5, 1),
        checkpoint=dict(every=max(steps // 5, 1), keep_last=1, keep_best=0),
    )


def _smaller(a: Architecture) -> dict[str, int]:
    """The student's shape: 3/4 of the width, 2/3 of the MLP, all layers, as Kanana prunes (arXiv:2502.18934, §2.3)."""
    unit = 64 if a.embed_dim >= 512 else 4
    return dict(embed_dim=a.embed_dim * 3 // 4 // unit * unit, mlp_dim=a.mlp_dim * 2 // 3 // unit * unit)
