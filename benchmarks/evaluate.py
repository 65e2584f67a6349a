"""Our model against the harness's own `hf` model: the same folder, the same tasks on local sets, figures and times.

    python benchmarks/evaluate.py DATA [--model FOLDER] [--chat] [--tasks mmlu,gsm8k,jsquad] [--limit 4] [--rounds 2]

DATA is a folder of evaluation sets (docs/evaluation.md). Without --model a random Llama is made, whose byte-level BPE
is trained on DATA; with --chat prompts are chats by the folder's template. `rolling` scores long texts in windows. `hf`
is as the harness makes it, in its defaults, but for the batch; it reads weights as they are stored, so give a folder in
float32. One JSON line per task: the largest difference of a metric, the documents whose answers or scores differ,
seconds of the process's CPUs for both (fair where other programs run too), of the first round, in which ours compiles,
and of the others, and the ratio of these: above 1, ours is faster. `--differences FILE` gets both lines of each such
document.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time


def make_model(folder: pathlib.Path, texts: list[str], vocab: int, width: int, layers: int) -> pathlib.Path:
    """A random Llama with a tokenizer of the texts; the output matrix is wide, so that its answers differ."""
    import tokenizers
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder.mkdir()
    bpe.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        head_dim=32,
        vocab_size=bpe.get_vocab_size(),
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def texts_of(data: pathlib.Path, tasks: list[str]) -> list[str]:
    """What the sets' files say, by line."""
    import gzip

    folders = {task.split("_")[0].replace("jsquad", "jglue") for task in tasks}
    lines = []
    for file in sorted(f for name in folders for f in (data / name).glob("*.jsonl*")):
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for line in text.decode().split("\n")[:1500]:
            values = json.loads(line).values() if line.strip() else ()
            lines.append(" ".join(v for v in values if isinstance(v, str)))
    return [line for line in lines if line]


def rolling(texts: list[str], count: int) -> dict:
    """A task of long texts: bits per byte."""
    import datasets

    longs = [" ".join(texts[i :: 4 * count])[:9000] for i in range(count)]
    return {
        "task": "rolling",
        "custom_dataset": lambda **_: datasets.DatasetDict(
            {"test": datasets.Dataset.from_list([{"text": text} for text in longs])}
        ),
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
        "metadata": {"version": 1.0},
    }


def differing(ours: list[dict], theirs: list[dict]) -> list[tuple[dict, dict]]:
    """The documents of which anything but a likelihood's last digits is not the same.

    Raises:
      ValueError: not the same documents.
    """
    pairs = list(zip(ours, theirs, strict=True))
    return [(a, b) for a, b in pairs if not _alike(a, b)]


def _alike(a, b) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a if key != "cut")
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3)
    return a == b


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--model")
    parser.add_argument("--tasks", default="mmlu,gsm8k,niilc,jsquad,rolling")
    for name, default in (("limit", 4), ("rounds", 2), ("batch", 8), ("vocab", 4096), ("width", 256), ("layers", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--differences", type=pathlib.Path)
    options = parser.parse_args()
    # This file's name is that of a package, which the harness's own tasks import.
    sys.path = [place for place in sys.path if pathlib.Path(place).resolve() != pathlib.Path(__file__).resolve().parent]
    import jax
    import torch
    from lm_eval.models.huggingface import HFLM

    from kanana_jax.evaluation import run, tasks
    from kanana_jax.evaluation.harness import HarnessModel
    from kanana_jax.inference.session import Session

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    names = options.tasks.split(",")
    texts = texts_of(options.data, [n for n in names if n != "rolling"])
    load = tasks.load
    tasks.load = lambda some, where, chat=False: (  # the one task that no file names
        load([], where, chat)._replace(specs=[rolling(texts, options.limit)])
        if list(some) == ["rolling"]
        else load(some, where, chat)
    )
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(
            make_model(pathlib.Path(folder) / "model", texts, options.vocab, options.width, options.layers)
        )
        ours = HarnessModel(Session.load(model, devices=jax.devices()[:1]), batch_size=options.batch)
        peer = HFLM(pretrained=model, batch_size=options.batch, device="cpu")
        for name in names:
            found: dict[str, dict] = {}
            seconds: dict[str, list[float]] = {"ours": [], "hf": []}
            for _ in range(options.rounds):
                for who, one in (("ours", ours), ("hf", peer)):
                    start = time.process_time()
                    found[who] = run.evaluate(
                        one, [name], data_dir=options.data, limit=options.limit, chat=options.chat
                    )
                    seconds[who].append(time.process_time() - start)
            differences = {
                f"{task} {metric}": abs(value - found["hf"]["results"][task][metric]) / max(1.0, abs(value))
                for task, metrics in found["ours"]["results"].items()
                for metric, value in metrics.items()
                if isinstance(value, float) and not metric.endswith("_stderr")
            }
            worst = max(differences, key=differences.get)
            last = {who: statistics.median(times[1:] or times) for who, times in seconds.items()}
            apart = differing(found["ours"]["samples"], found["hf"]["samples"])
            if options.differences:
                with options.differences.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(pair, ensure_ascii=False, default=str) + "\n" for pair in apart)
            line = {
                "task": name,
                "chat": options.chat,
                "n": found["ours"]["results"][name]["n"],
                "metrics": len(differences),
                "worst": worst,
                "difference": round(differences[worst], 6),
                "documents_apart": len(apart),
                "first_s": {who: round(times[0], 2) for who, times in seconds.items()},
                **{f"{who}_s": round(value, 2) for who, value in last.items()},
                "ratio": round(last["hf"] / last["ours"], 2),
            }
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
