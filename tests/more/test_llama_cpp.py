"""Our GGUF files in llama.cpp: the ids of any text, every distribution, and the greedy text of `kanana generate`."""

import json
import pathlib
import subprocess

import gguf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import texts_of_all_kinds as texts
from environments import node

from kanana_jax import cli
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session
from kanana_jax.interop.gguf import file
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.transformer import bind

pytestmark = pytest.mark.more

# Per file: ids of texts; greedy ids after prompts; the distribution behind each token of rows.
READ = """
import {getLlama} from "node-llama-cpp"; import fs from "fs";
const [jobs, out] = process.argv.slice(2), told = [];
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 2});
for (const {gguf, texts, prompts, steps, rows} of JSON.parse(fs.readFileSync(jobs, "utf8"))) {
    const model = await llama.loadModel({modelPath: gguf}), {bos, eos, shouldPrependBosToken} = model.tokens;
    const context = await model.createContext({contextSize: 256, batchSize: 256, flashAttention: false});
    const found = {bos, eos, shouldPrependBosToken, greedy: [], probabilities: []};
    found.template = model.fileInfo.metadata.tokenizer.chat_template ?? null;
    found.ids = texts.map(text => Array.from(model.tokenize(text, false)));
    for (const prompt of prompts) {
        const sequence = context.getSequence(), ids = [];
        if (steps) for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            ids.push(token);
            if (ids.length >= steps || model.isEogToken(token)) break;
        }
        found.greedy.push(ids); sequence.dispose();
    }
    for (const row of rows) {
        const sequence = context.getSequence();
        const parts = await sequence.controlledEvaluate(row.map(token => [token, {generateNext: {probabilities: true}}]));
        found.probabilities.push(parts.map(part => Array.from(part.next.probabilities)));
        sequence.dispose();
    }
    told.push(found);
    await context.dispose(); await model.dispose();
}
fs.writeFileSync(out, JSON.stringify(told));
process.exit(0);
"""


@pytest.fixture(scope="module")
def llama_cpp(node, tmp_path_factory):
    """`llama_cpp(jobs)`: what llama.cpp makes of files."""
    place, folder = node("llama.cpp", "node-llama-cpp@3.21.1"), tmp_path_factory.mktemp("jobs")

    def ask(jobs: list[dict]) -> list[dict]:
        script = place / "read.mjs"
        script.write_text(READ, encoding="utf-8")
        jobs = [{"texts": [], "prompts": [], "steps": 0, "rows": []} | job for job in jobs]
        (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        subprocess.run(["node", str(script), str(folder / "jobs.json"), str(folder / "told.json")], check=True)
        return json.loads((folder / "told.json").read_text(encoding="utf-8"))

    return ask


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> pathlib.Path:
    return gguf_models.tokenizer(tmp_path_factory.mktemp("words"))


def test_ids_and_greedy_text_are_ours(llama_cpp, words, tmp_path):
    """With ends of a text and template; the model's weights are such that the best token leads by much."""
    name, lines, prompts = "llama with biases", texts.lines(5000), ["가람시에", "A library", "3"]
    gguf_models.write(tmp_path / "m", gguf_models.MODELS[name][1], words)
    assert cli.main(["export", str(tmp_path / "m"), str(tmp_path / "m.gguf")]) == 0
    ours = load_tokenizer(words)
    begun = [[*ours.prefix, *ours.encode(prompt).tolist()] for prompt in prompts]
    (told,) = llama_cpp([{"gguf": str(tmp_path / "m.gguf"), "texts": lines, "prompts": begun, "steps": 40}])
    assert (told["bos"], told["eos"], told["shouldPrependBosToken"]) == (ours.bos_id, ours.eos_id, True)
    assert told["template"] == ours.chat.template()
    for text, ids in zip(lines, told["ids"], strict=True):
        assert ids == ours.encode(text).tolist(), text
    session = Session.load(str(tmp_path / "m"), "float32")
    wanted = session.continue_texts(prompts, max_new_tokens=40, sampling=SamplingConfig(0.0), seed=0)
    for prompt, ids, text in zip(prompts, told["greedy"], wanted, strict=True):
        assert text.removeprefix(prompt) == ours.decode([i for i in ids if i not in ours.end_ids])


def test_distributions_are_ours_in_every_architecture(llama_cpp, words, tmp_path):
    """At each of 60 tokens, past the window of 8; llama.cpp keeps keys and values in float16."""
    rows, jobs, wanted = [np.random.default_rng(0).integers(0, gguf_models.TOKENS, 60).tolist()], [], {}
    for name, (_, a) in gguf_models.MODELS.items():
        params = gguf_models.write(tmp_path / name.replace(" ", "_"), a, words)
        out = tmp_path / f"{name.replace(' ', '_')}.gguf"
        file.export(tmp_path / name.replace(" ", "_"), out, "f32")
        model = bind(a, Runtime(scan_layers=False), params)
        wanted[name] = np.asarray(jax.nn.softmax(model.unembed(model(jnp.asarray(rows)))))[0]
        jobs.append({"gguf": str(out), "rows": rows})
    for (name, ours), told in zip(wanted.items(), llama_cpp(jobs), strict=True):
        theirs = np.zeros_like(ours)
        for place, part in enumerate(told["probabilities"][0]):
            for token, p in part:
                theirs[place, token] = p
        assert np.abs(theirs - ours).max() < 0.02 * ours.max(), name
