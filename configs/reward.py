"""A reward model trained on pairs of answers (arXiv:2502.18934, §3.1), evaluated on held-out pairs.

    kanana run --config configs/reward.py:MODEL,PAIRS --workdir runs/reward

MODEL is a stage of a workdir, a model folder or a Hugging Face folder with a chat template, usually a model fine-tuned
on conversations. PAIRS is a file or folder as for `configs/dpo.py`.
"""

from kanana_jax.configs import dpo


def get_config(arg: str = ""):
    # InstructGPT's learning rate and schedule (arXiv:2203.02155, C.2); rewards centred as in arXiv:2312.09244.
    return dpo.on_pairs(arg, "reward", 9e-6, reward=dict(centring=0.01))
