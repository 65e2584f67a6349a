"""Training of a chat model on its own answers: online DPO, GRPO, or on-policy distillation from a larger model.

    kanana run --config configs/online.py:MODEL,PROMPTS --workdir runs/online
    kanana run --config configs/online.py:MODEL,PROMPTS,grpo --workdir runs/grpo
    kanana run --config configs/online.py:MODEL,PROMPTS,TEACHER --workdir runs/taught

MODEL is a stage of a workdir, a model folder or a Hugging Face folder with a chat template. PROMPTS is a file or folder
of lines `{"prompt", "answer", "verifier"}`, or GSM8K's `{"question", "answer"}`. TEACHER is a model with the same
tokenizer; with a teacher, prompts need no answers. Online DPO follows the paper (arXiv:2502.18934, §3.1). GRPO follows
arXiv:2402.03300, with the asymmetric clip and the token-level mean of arXiv:2503.14476.
"""

from kanana_jax.configs import sft

PROMPTS_PER_STEP, SEQ_LEN, STEPS = 32, 2048, 500
LOSSES = {
    # The reference stays fixed, as in the paper, which states neither β nor learning rate: both are configs/dpo.py's.
    "online_dpo": dict(preference=dict(loss="sigmoid", beta=0.1), rollout=dict(samples=4, max_new_tokens=512)),
    "grpo": dict(policy=dict(kl_weight=0.0), rollout=dict(samples=8, max_new_tokens=1024)),
    "on_policy_distill": dict(loss=dict(divergence="reverse"), rollout=dict(samples=2, max_new_tokens=1024)),
}


def get_config(arg: str = ""):
    model, prompts, method = (*arg.split(","), "", "")[:3]
    if not model or not prompts:
        raise ValueError("name a model and a file of prompts: configs/online.py:MODEL,PROMPTS")
    kind = (method or "online_dpo") if method in ("", *LOSSES) else "on_policy_distill"
    if method == "on_policy_distill":
        raise ValueError("name the teacher: configs/online.py:MODEL,PROMPTS,TEACHER")
    c = sft.one_source("online", model, "prompts", prompts, holdout=0.02, max_bytes=50_000)
    c.stages = ("online",)
    c.online = dict(
        kind=kind,
        start=model,
        mixture=dict(prompts=1.0),
        staleness=0,
        train=dict(
            tokens=STEPS * PROMPTS_PER_STEP * SEQ_LEN,
            batch_tokens=PROMPTS_PER_STEP * SEQ_LEN,
            seq_len=SEQ_LEN,
            optimizer=dict(
                learning_rate=5e-7 if kind == "online_dpo" else 1e-6,
                weight_decay=0.0,
                schedule=dict(kind="cosine", warmup_steps=10, final=0.1),
            ),
            log_every=1,
            eval_every=50,
            checkpoint=dict(every=50, keep_last=2, keep_best=1),
        ),
        **LOSSES[kind],
        **(dict(teacher=method) if kind == "on_policy_distill" else {}),
    )
    return c
