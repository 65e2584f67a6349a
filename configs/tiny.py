"""The whole recipe on two CPU cores, on the embedded corpus (arXiv:2502.18934).

    kanana run --config configs/tiny.py --workdir runs/tiny                            (or: make demo)
    kanana run --config configs/tiny.py --workdir runs/quick --config.profile=quick    (the same stages, fewer steps)

Stage 1 pre-trains on all kinds of text, including noise. Stage 2 anneals on the high-quality kinds with a decaying
learning rate and continues from stage 1's position in every source (the idea of Figure 2). Two branches start from
stage 2: one is up-scaled in depth and trained further (§2.2), the other is pruned in width and distilled (§2.3).
Alignment, embeddings, function calls and the evaluation are in `configs/tiny_adaptation.py`.

`tiny.py:pretrained` stops after the distilled student; `tiny.py:aligned` runs the two pre-training stages and
alignment. `:test`, `:aligned-test` and `:whole-test` shrink `:pretrained`, `:aligned` and the whole recipe to a few
seconds, for the tests.
"""

from kanana_jax.configs import tiny_adaptation
from ml_collections import ConfigDict

from kanana_jax.models import presets

VOCAB = 4096
# kind: (documents per language, weight in stage 1, weight in stage 2). Weights are shares of one language's half.
KINDS = {
    "news": (3000, 0.35, 0.15),
    "encyclopedia": (4000, 0.25, 0.30),
    "dialogue": (1500, 0.10, 0.05),
    "textbook": (1800, 0.10, 0.20),
    "code": (900, 0.05, 0.10),
    "parallel": (1400, 0.05, 0.20),
    "noise": (800, 0.10, 0.00),
}
# `--config.profile=quick`: fewer training tokens per stage, fewer documents per source, smaller evaluations. No
# samples, since compiling the sampler takes 7 s of one core for each model shape. Layers are scanned, which compiles
# one layer instead of four but runs slower.
QUICK = tuple(
    f"{stage}.train.tokens={tokens}"
    for stage, tokens in dict(
        stage1=64_000, stage2=24_000, deeper=12_000, student=16_000, sft=24_000, reward=12_000, dpo=12_000,
        online=3 * 16 * 256, mntp=8_000, contrastive=12_000, rag_sft=12_800, rag_dpo=8_000, calls_en=12_800,
        calls_ko=12_800,
    ).items()
) + (
    "runtime.scan_layers=true", "evaluation.max_bytes=2000", "samples.prompts={}", "online.rollout.max_new_tokens=24",
    "evaluated.tasks.names=microworld", "evaluated.tasks.limit=10", "evaluated.calls.limit=4",
    "evaluated.best_of_n=none",
    "rag_made.rag_data.passages=64", "evaluated.documents.limit=8",
)  # fmt: skip
QUICK_DOCUMENTS = 1000
PRETRAINED = ("stage1", "stage2", "upscaled", "deeper", "pruned", "student")


def get_config(arg: str = ""):
    if arg not in ("", "pretrained", "aligned", "test", "aligned-test", "whole-test"):
        raise ValueError("known: no argument, 'pretrained', 'aligned', and 'test', 'aligned-test' or 'whole-test'")
    c = ConfigDict()
    c.name = "tiny"
    c.seed = 0
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=1_000_000)
    c.sources = ConfigDict(sort_keys=False)
    for lang in ("ko", "en"):
        for kind, (documents, _, _) in KINDS.items():
            uri = f"microworld://{kind}/{lang}?size={tiny_adaptation.PEOPLE}&count={documents}"
            c.sources[f"{lang}_{kind}"] = dict(path=uri, lang=lang, holdout=0.0 if kind == "noise" else 0.03)
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1, slices=1)
    c.runtime = dict(attention="auto", scan_layers=False)  # only four layers: unrolled runs faster on a CPU
    c.data = dict(lanes=4, workers="threads")
    c.filters = dict(default=dict(rules=dict(length=dict(signal="characters", min=30.0))))
    c.evaluation = dict(max_bytes=20_000, batch_size=16)
    c.samples = dict(
        prompts=dict(
            ko=("가람시에 새 도서관이 5월 3일 문을 열었다.", "예제 7. 우산 하나의 값이 3000원이다."),
            en=("A new library opened in Garam City on May 3.", "Example 7. One umbrella costs 3,000 won."),
        ),
        max_new_tokens=80,
        sampling=dict(temperature=0.4, top_p=0.9),
    )
    c.stages = PRETRAINED
    model = presets.tiny(VOCAB, embed_dim=192, mlp_dim=512, num_layers=4, num_heads=6, num_kv_heads=2)
    optimizer = dict(learning_rate=4e-3, weight_decay=1e-4, schedule=dict(kind="multi_step", warmup_steps=40))
    train = dict(
        tokens=1_000_000,
        batch_tokens=4096,
        seq_len=256,
        optimizer=optimizer,
        log_every=10,
        eval_every=100,
        checkpoint=dict(every=100, keep_last=2, keep_best=1),
    )
    c.stage1 = dict(kind="pretrain", model=model.to_dict(), train=train, mixture=_mixture(1))
    c.stage2 = dict(
        kind="pretrain",
        start="stage1",
        mixture=_mixture(2),
        train=train
        | dict(
            tokens=330_000,
            optimizer=optimizer | dict(learning_rate=1.5e-3, schedule=dict(kind="cosine", warmup_steps=10, final=0.05)),
        ),
    )
    short = train | dict(tokens=90_000, eval_every=0, checkpoint=dict(every=100, keep_last=1, keep_best=0))
    healing = optimizer | dict(learning_rate=1e-3, schedule=dict(kind="cosine", warmup_steps=10, final=0.05))
    c.upscaled = dict(kind="upscale", start="stage2", upscale=dict(num_layers=6))
    c.deeper = dict(kind="pretrain", start="upscaled", mixture=_mixture(2), train=short | dict(optimizer=healing))
    c.pruned = dict(
        kind="prune",
        start="stage2",
        mixture=_mixture(2),
        prune=dict(
            shape=dict(embed_dim=128, mlp_dim=320, num_heads=4),
            importance=dict(samples=128, batch_size=16),
            seq_len=256,
        ),
    )
    c.student = dict(
        kind="distill",
        start="pruned",
        mixture=_mixture(2),
        distill=dict(teacher="stage2", dtype="float32"),
        train=short | dict(tokens=160_000, optimizer=healing | dict(learning_rate=2e-3)),
    )
    if arg not in ("pretrained", "test"):
        tiny_adaptation.align(c, train, healing, share=1.0 if "aligned" in arg else 0.4)
        c.stages = ("stage1", "stage2", *tiny_adaptation.ALIGNED)
    if arg in ("", "whole-test"):
        tiny_adaptation.adapt(c, train, healing)
        tiny_adaptation.documents(c, train, healing)
        tiny_adaptation.evaluate(c)
        c.stages = (*PRETRAINED, *tiny_adaptation.ALIGNED, *tiny_adaptation.ADAPTED, "evaluated")
        c.profiles = dict(quick=QUICK + tuple(f"sources.{n}.max_documents={QUICK_DOCUMENTS}" for n in c.sources))
    if "test" in arg:
        _shrink(c)
    return c


def _mixture(stage: int) -> dict[str, float]:
    return {f"{lang}_{kind}": row[stage] / 2 for lang in ("ko", "en") for kind, row in KINDS.items()}


def _shrink(c: ConfigDict) -> None:
    c.tokenizer.update(vocab_size=800, train_bytes=200_000)
    for source in (source for source in c.sources.values() if "made_by" not in source):
        source.update(path=source.path.split("count=")[0] + "count=60", holdout=0.1 if source.holdout else 0.0)
    c.evaluation.update(max_bytes=2_000, batch_size=8)
    c.samples.max_new_tokens = 8
    c.stage1.model = presets.tiny(
        800, embed_dim=32, mlp_dim=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=2048
    ).to_dict()  # long rows: with a small vocabulary, prompts have more tokens
    c.upscaled.upscale.num_layers = 3
    c.pruned.prune.shape = dict(embed_dim=24, mlp_dim=48, num_heads=2)
    c.pruned.prune.update(importance=dict(samples=8, batch_size=8), seq_len=64)
    rows = dict(stage1=(12, 64), stage2=(6, 64), deeper=(4, 64), student=(6, 64))
    if "sft" in c:
        c.online.rollout.update(samples=2, max_new_tokens=8)
        rows |= dict(sft=(6, 128), reward=(4, 128), dpo=(4, 128), online=(2, 128))  # a row holds both answers of a pair
    if "evaluated" in c:
        rows |= dict(mntp=(2, 64), contrastive=(2, 512), calls_en=(2, 1024), calls_ko=(2, 1024))
        rows |= dict(rag_sft=(2, 1024), rag_dpo=(2, 2048))
        c.rag_made.rag_data.update(passages=16, seq_len=128, block=16)
        c.rag_made.rag_data.rollout.max_new_tokens = 8
        c.evaluated.update(models=("student", "rag_merged", "calls_ko"), tasks=dict(names=("microworld",), limit=2))
        c.evaluated.calls.update(models=("calls_ko",), limit=2)
        c.evaluated.best_of_n.update(limit=1, n=2, max_new_tokens=8)
        c.evaluated.documents.update(models=("rag_merged",), limit=2)
    for name, (steps, seq_len) in rows.items():
        train = c[name].train
        batch = max(512, 4 * seq_len)
        train.update(batch_tokens=batch, seq_len=seq_len, tokens=batch * steps, log_every=1, eval_every=6)
        train.checkpoint.update(every=4, keep_best=0)
