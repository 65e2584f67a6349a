"""An exported model in transformers 4.57 and 5: our ids on any text, our chats, and our greedy text."""

import json
import subprocess
import sys

import jax
import own_models
import pytest
import texts_of_all_kinds as texts
from environments import interpreter

from kanana_jax.data import microworld
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder

pytestmark = pytest.mark.more

SCRIPT = """
import json, sys
import torch, transformers
folder, asked = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
ids = [tokenizer(text)["input_ids"] for text in asked["texts"]]
back = [tokenizer.decode(i, skip_special_tokens=True) for i in ids]
written = []
for prompt in asked["prompts"]:
    given = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**given, max_new_tokens=asked["new"], do_sample=False)
    written.append(tokenizer.decode(out[0], skip_special_tokens=True))
chat = tokenizer.apply_chat_template(asked["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
json.dump({"chat": chat, "version": transformers.__version__, "ids": ids, "back": back, "written": written}, open(sys.argv[3], "w"))
"""
MESSAGES = [{"role": "system", "content": " 짧게 "}, {"role": "user", "content": "What is <b> in 가람시?\n"}]
PROMPTS = ["가람시에 새 도서관이", "A new library opened", "図書館は", "def f(x):\n    return"]


@pytest.fixture(params=["4.57", "5."])
def python(request, interpreter):
    """An interpreter with one version; the fifth is that of `make parity`, where that was called."""
    if request.param == "4.57":
        needs = ("transformers==4.57.3", "torch==2.13.0", "numpy", "jinja2")
        return request.param, interpreter("transformers-4", *needs)
    for package in ("transformers", "torch"):
        pytest.importorskip(package, reason=f"{package} is not installed here (make parity installs it)")
    return request.param, sys.executable


@pytest.mark.parametrize("kind", own_models.VOCABULARIES)
def test_ids_chats_and_greedy_text_are_ours(python, tmp_path, kind):
    version, python = python
    stage = own_models.write(tmp_path, kind, microworld.World.create(0, 400))
    model_folder.transfer(stage, tmp_path / "exported", keep_card=False)
    lines = texts.lines(5000)
    asked = {"texts": lines, "prompts": PROMPTS, "new": 40, "messages": MESSAGES}
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    command = [python, "-c", SCRIPT, str(tmp_path / "exported"), str(tmp_path / "asked.json"), str(tmp_path / "told")]
    subprocess.run(command, check=True)
    told = json.loads((tmp_path / "told").read_text())
    assert told["version"].startswith(version)
    ours = load_tokenizer(stage)
    for text, ids, back in zip(lines, told["ids"], told["back"], strict=True):
        assert ids == [ours.bos_id, *ours.encode_with_symbols(text).tolist()], text
        assert back == ours.decode(ids)
    assert told["chat"] == chat.encode_chat(ours, MESSAGES).tolist()
    session = Session.load(str(stage), devices=jax.devices()[:1])
    greedy = SamplingConfig(temperature=0.0)
    assert told["written"] == session.continue_texts(PROMPTS, max_new_tokens=40, sampling=greedy, seed=0)
