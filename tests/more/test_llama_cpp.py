"""The default vocabulary in llama.cpp, by its name there for Llama 3's pre-tokenizer: our ids on any text."""

import json
import subprocess

import own_models
import pytest
import texts_of_all_kinds as texts
from environments import interpreter, node

from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.more

WRITE = """
import json, pathlib, sys
import gguf
folder = pathlib.Path(sys.argv[1])
definition = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
symbols = {token["content"]: token["id"] for token in definition["added_tokens"]}
pieces = sorted((definition["model"]["vocab"] | symbols).items(), key=lambda item: item[1])
assert [i for _, i in pieces] == list(range(len(pieces)))
w = gguf.GGUFWriter(sys.argv[2], "llama")
for add, value in (
    (w.add_vocab_size, len(pieces)), (w.add_context_length, 64), (w.add_embedding_length, 32), (w.add_block_count, 1),
    (w.add_feed_forward_length, 32), (w.add_head_count, 1), (w.add_layer_norm_rms_eps, 1e-5),
    (w.add_tokenizer_model, "gpt2"), (w.add_tokenizer_pre, "llama-bpe"), (w.add_token_list, [p for p, _ in pieces]),
    (w.add_token_types, [3 if p in symbols else 1 for p, _ in pieces]),
    (w.add_token_merges, [" ".join(pair) for pair in definition["model"]["merges"]]),
    (w.add_bos_token_id, symbols[config["bos_token"]]), (w.add_eos_token_id, symbols[config["eos_token"]]),
    (w.add_add_bos_token, True),
):
    add(value)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
"""
READ = """
import {getLlama} from "node-llama-cpp"; import fs from "fs";
const [gguf, lines, out] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: gguf, vocabOnly: true});
const ids = JSON.parse(fs.readFileSync(lines, "utf8")).map(text => Array.from(model.tokenize(text, false)));
const {bos, eos, shouldPrependBosToken} = model.tokens;
fs.writeFileSync(out, JSON.stringify({ids, bos, eos, shouldPrependBosToken}));
process.exit(0);
"""


def test_ids_are_ours(interpreter, node, tmp_path):
    python, place = interpreter("gguf", "gguf==0.19.0"), node("llama.cpp", "node-llama-cpp@3.21.1")
    own_models.write(tmp_path, "bpe", microworld.World.create(0, 400))
    lines = texts.lines(5000)
    (tmp_path / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    script = place / "ids.mjs"
    script.write_text(READ, encoding="utf-8")
    gguf, told = tmp_path / "vocabulary.gguf", tmp_path / "told.json"
    subprocess.run([python, "-c", WRITE, str(tmp_path / "model"), str(gguf)], check=True)
    subprocess.run(["node", str(script), str(gguf), str(tmp_path / "lines.json"), str(told)], check=True)
    found, ours = json.loads(told.read_text()), load_tokenizer(tmp_path / "model")
    assert (found["bos"], found["eos"], found["shouldPrependBosToken"]) == (ours.bos_id, ours.eos_id, True)
    for text, ids in zip(lines, found["ids"], strict=True):
        assert ids == ours.encode(text).tolist(), text
