"""A random model in a Hugging Face folder, with a byte-level BPE that knows Llama 3's chat symbols and puts BOS first."""

import gzip
import json

import jax
import pytest
import tokenizers

from kanana_jax.data import microworld
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import init_params

CHAT_SYMBOLS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
EOS = "<|end_of_text|>"


WORLD = microworld.World.create(0, 400)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*CHAT_SYMBOLS, EOS],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [d["text"] for lang in ("ko", "en") for d in microworld.documents(WORLD, "news", lang, 60)]
    bpe.train_from_iterator(texts, trainer)
    bos = bpe.token_to_id(CHAT_SYMBOLS[0])
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{CHAT_SYMBOLS[0]} $A", special_tokens=[(CHAT_SYMBOLS[0], bos)]
    )
    bpe.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": CHAT_SYMBOLS[0], "eos_token": EOS}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    a = Architecture(
        vocab_size=400, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=512,
        init_std=0.25, rope_theta=10_000.0,
    )  # fmt: skip
    params = jax.device_get(init_params(a, Runtime(), jax.random.key(1)))
    special = {"bos_token_id": bos, "eos_token_id": bpe.token_to_id(EOS)}
    model = tmp_path_factory.mktemp("hf") / "model"
    model_folder.write(model, a, params, model_folder.card(a), folder, special)
    return model


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A few questions in the form of published sets."""
    folder = tmp_path_factory.mktemp("data")

    def write(name, rows):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    questions = microworld.questions(WORLD, per_task=24)
    chosen = [q for q in questions if q["choices"]]
    for split, rows in (("dev", chosen[:24]), ("test", chosen[24:])):
        mmlu = [
            dict(
                question=q["question"], choices=q["choices"], answer=q["choices"].index(q["answer"]), subject=q["lang"]
            )
            for q in rows
        ]
        write(f"mmlu/{split}.jsonl", mmlu)
    sums = [q for q in questions if q["task"].startswith("arithmetic")]
    write("gsm8k/test.jsonl", [dict(question=q["question"], answer=f"So\n#### {q['answer']}") for q in sums[:12]])
    write("niilc/test.jsonl", [dict(question=q["question"], answers=[q["answer"], "x"]) for q in sums[:8]])
    write("niilc/dev.jsonl", [dict(question=q["question"], answers=[q["answer"]]) for q in sums[8:16]])
    for name in ("mmlu/test", "mmlu/dev"):
        file = folder / f"{name}.jsonl"
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    return folder
