"""Fine-tuning and DPO with LoRA against TRL and PEFT: the same model, conversations and pairs, on the same cores.

    python benchmarks/align_speed.py MODEL [--rounds 2] [--steps 12] [--batch-tokens 4096]

MODEL is a Hugging Face folder with a chat template. The data are conversations and pairs of the embedded world, short
and of unlike lengths. Ours packs them into rows; TRL pads a batch of as many of them as our rows hold on average
(`padded`), and TRL's own packing, where it has one (`packed`; of SFT). Both train adapters of rank 16 on all linear
weights, in float32 with AdamW and clipping. In turns, in processes of their own; the best round of each counts. Tokens
are those that a model must read, without padding, per second between the first third of the steps and the last one. One
JSON line per task and side. Needs the extra `parity`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from kanana_jax.data.microworld import World, document

RANK, ALPHA, SEQ_LEN = 16, 32, 512
SIDES = {"sft": ("ours", "padded", "packed"), "dpo": ("ours", "padded")}


def write_data(folder: pathlib.Path) -> None:
    """`chat.jsonl` and `pairs.jsonl`, Korean and English in turn."""
    world = World.create(seed=0, size=4000)
    for form in ("chat", "pairs"):
        with (folder / f"{form}.jsonl").open("w", encoding="utf-8") as file:
            for i in range(3000):
                row = document(world, form, ("ko", "en")[i % 2], i // 2)
                keep = {k: row[k] for k in ("messages", "prompt", "chosen", "rejected") if k in row}
                file.write(json.dumps(keep, ensure_ascii=False) + "\n")


def ours(task: str, model: str, data: pathlib.Path, steps: int, batch_tokens: int) -> dict[str, float]:
    import jax
    from kanana_jax.configs import dpo, sft

    from kanana_jax.recipe import run as recipe

    file = data / ("chat.jsonl" if task == "sft" else "pairs.jsonl")
    config = (sft if task == "sft" else dpo).get_config(f"{model},{file}")
    (source,) = config.sources
    config.sources[source].holdout = 0.0
    config.filters = {source: {}}
    config.runtime.compute_dtype = "float32"
    config.data.lanes = 1
    section = config[task]
    section.lora = dict(rank=RANK, alpha=ALPHA)
    section.train.update(batch_tokens=batch_tokens, seq_len=SEQ_LEN, tokens=batch_tokens * steps, log_every=1)
    section.train.update(eval_every=0, checkpoint=dict(every=steps, keep_last=1, keep_best=0))
    section.train.optimizer.update(learning_rate=1e-4)
    workdir = data / f"ours-{task}-{time.time_ns()}"
    recipe.run(config, workdir, devices=jax.devices()[:1])
    lines = (workdir / task / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "eval" not in row]
    kept = rows[steps // 3 :]
    read = kept[-1]["tokens"] - rows[steps // 3 - 1]["tokens"]
    return {"tokens_per_s": read / sum(row["step_s"] for row in kept), "tokens_per_step": read / len(kept)}


def theirs(task: str, side: str, model: str, data: pathlib.Path, steps: int, batch_tokens: int) -> dict[str, float]:
    import datasets
    import peft
    import torch
    import transformers
    import trl

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    policy = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = datasets.load_dataset("json", data_files=str(data / ("chat.jsonl" if task == "sft" else "pairs.jsonl")))
    adapters = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    packed = side == "packed"
    per_step = batch_tokens // SEQ_LEN if packed else _examples(task, tokenizer, rows["train"], batch_tokens)
    shared: dict[str, Any] = dict(
        output_dir=str(data / f"theirs-{time.time_ns()}"),
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        per_device_train_batch_size=per_step,
        max_steps=steps,
        learning_rate=1e-4,
        logging_steps=1000,
        save_strategy="no",
        gradient_checkpointing=False,
        max_length=SEQ_LEN,
        dataset_num_proc=None,
    )
    times: list[float] = []
    tokens: list[int] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            times.append(time.perf_counter())

    if task == "sft":
        config = trl.SFTConfig(**shared, packing=packed, assistant_only_loss=False)
        trainer = trl.SFTTrainer(
            policy, config, train_dataset=rows["train"], processing_class=tokenizer, peft_config=adapters
        )
    else:
        config = trl.DPOConfig(**shared)
        trainer = trl.DPOTrainer(
            policy, None, config, train_dataset=rows["train"], processing_class=tokenizer, peft_config=adapters
        )
    trainer.add_callback(Clock())
    inner = trainer.compute_loss

    def counted(model, inputs, *arguments, **options):
        mask = inputs.get("attention_mask")
        tokens.append(int(mask.sum()) if mask is not None else int(inputs["input_ids"].numel()))
        return inner(model, inputs, *arguments, **options)

    trainer.compute_loss = counted
    trainer.train()
    first = steps // 3 - 1
    seconds, read = times[-1] - times[first], sum(tokens[first + 1 :])
    return {"tokens_per_s": read / seconds, "tokens_per_step": read / (steps - first - 1)}


def _examples(task: str, tokenizer, rows, batch_tokens: int) -> int:
    """Conversations, or pairs, that fill a batch of our rows on average."""
    some = [rows[i] for i in range(300)]
    if task == "sft":
        sizes = [len(tokenizer.apply_chat_template(row["messages"], return_dict=False)) for row in some]
    else:
        sizes = [
            sum(
                len(tokenizer.apply_chat_template(row["prompt"] + row[k], return_dict=False))
                for k in ("chosen", "rejected")
            )
            for row in some
        ]
    return max(1, int(batch_tokens / (sum(sizes) / len(sizes))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--tasks", nargs="+", default=[*SIDES], choices=SIDES)
    parser.add_argument("--one", nargs=2, metavar=("TASK", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        task, side = options.one
        sizes = (options.model, options.data, options.steps, options.batch_tokens)
        found = ours(task, *sizes) if side == "ours" else theirs(task, side, *sizes)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_data(pathlib.Path(folder))
        best: dict[tuple[str, str], dict[str, float]] = {}
        for _ in range(options.rounds):
            for task in options.tasks:
                for side in SIDES[task]:
                    own = ["--steps", str(options.steps), "--batch-tokens", str(options.batch_tokens)]
                    command = [sys.executable, __file__, options.model, *own, "--one", task, side, "--data", folder]
                    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
                    found = json.loads(ran.stdout.strip().splitlines()[-1])
                    if found["tokens_per_s"] > best.get((task, side), {}).get("tokens_per_s", 0):
                        best[task, side] = found
        for (task, side), found in best.items():
            line = {"task": task, "side": side} | {name: round(value, 1) for name, value in found.items()}
            print(
                json.dumps(
                    line | {"ours_over_it": round(best[task, "ours"]["tokens_per_s"] / found["tokens_per_s"], 2)}
                )
            )


if __name__ == "__main__":
    main()
