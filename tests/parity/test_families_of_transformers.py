"""Every family: a random folder that its class in `transformers` writes has the same logits, gradients and text here.

Gains and biases are random too, windows are shorter than the text. float32.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from kanana_jax.inference.generate import generate
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import FAMILIES, family_of
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import bind
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gradients = pytest.importorskip("gradients")  # which needs torch

BASE = dict(
    vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2, pad_token_id=0, bos_token_id=1,
    eos_token_id=2,
)  # fmt: skip
PLAIN = dict(rope_type="default", rope_theta=1e4)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)  # fmt: skip
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=40.0, original_max_position_embeddings=32)
LINEAR = dict(rope_type="linear", rope_theta=1e6, factor=8.0)
FULL, SLIDING = "full_attention", "sliding_attention"


def _types(word):
    return [SLIDING if letter == "S" else FULL for letter in word]


def _by_type(full, sliding=PLAIN):
    return {FULL: full, SLIDING: sliding}


GEMMA = dict(head_dim=16, query_pre_attn_scalar=20)
# name → (model_type, keys); the first of each family is its case for gradients and greedy text.
CASES = {
    "llama": ("llama", dict(attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3)),
    "llama_tied": ("llama", dict(tie_word_embeddings=True, head_dim=16, rope_parameters=LINEAR)),
    "mistral": ("mistral", dict(sliding_window=7, num_hidden_layers=3)),
    "mistral_width": ("mistral", dict(sliding_window=None, hidden_size=36, num_attention_heads=8, head_dim=8)),
    "qwen2": ("qwen2", dict(use_sliding_window=True, sliding_window=7, max_window_layers=1, rope_parameters=YARN)),
    "qwen2_tied": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen3": (
        "qwen3",
        dict(head_dim=16, attention_bias=True, use_sliding_window=True, sliding_window=7, num_hidden_layers=3,
             layer_types=_types("SFS")),
    ),
    "qwen3_tied": ("qwen3", dict(head_dim=16, tie_word_embeddings=True, rope_parameters=YARN)),
    "smollm3": ("smollm3", dict(num_hidden_layers=5, rope_parameters=YARN)),
    "smollm3_windows": (
        "smollm3",
        dict(num_hidden_layers=4, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=7,
             attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    ),
    "olmo2": ("olmo2", dict(rope_parameters=LLAMA3)),
    "olmo2_tied": ("olmo2", dict(tie_word_embeddings=True, attention_bias=True)),
    "olmo3": ("olmo3", dict(num_hidden_layers=5, sliding_window=7, rope_parameters=_by_type(YARN))),
    "olmo3_tied": ("olmo3", dict(tie_word_embeddings=True, sliding_window=7, layer_types=_types("FS"))),
    "exaone4": (
        "exaone4", dict(num_hidden_layers=3, sliding_window=7, sliding_window_pattern=2, rope_parameters=LLAMA3),
    ),
    "exaone4_full": (
        "exaone4", dict(sliding_window=None, layer_types=_types("FF"), tie_word_embeddings=True),
    ),
    "hyperclovax": (
        "hyperclovax",
        dict(embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=0.3, attention_multiplier=0.2,
             attention_bias=True, mlp_bias=True, rope_parameters=YARN),
    ),
    "hyperclovax_tied": ("hyperclovax", dict(use_post_norm=False, embedding_multiplier=2.0, tie_word_embeddings=True)),
    "gemma2": ("gemma2", dict(sliding_window=7, num_hidden_layers=3, attn_logit_softcapping=3.0, **GEMMA)),
    "gemma2_untied": (
        "gemma2",
        dict(sliding_window=7, tie_word_embeddings=False, attn_logit_softcapping=None, final_logit_softcapping=None,
             attention_bias=True, head_dim=16, query_pre_attn_scalar=16),
    ),
    "gemma3": (
        "gemma3_text", dict(sliding_window=7, sliding_window_pattern=2, num_hidden_layers=3,
                            rope_parameters=_by_type(LINEAR), **GEMMA),
    ),
    "gemma3_untied": (
        "gemma3_text", dict(sliding_window=7, tie_word_embeddings=False, final_logit_softcapping=5.0, **GEMMA),
    ),
    "mellum": (
        "mellum",
        dict(head_dim=16, sliding_window=7, num_hidden_layers=4, layer_types=_types("SSSF"), tie_word_embeddings=True,
             mlp_layer_types=["dense"] * 4, rope_parameters=_by_type(YARN)),
    ),
}  # fmt: skip
FIRST = [name for name in CASES if "_" not in name]
TOKENS = np.random.default_rng(0).integers(3, 61, (2, 48))


def _class(name):
    return getattr(transformers, next(f.class_name for f in FAMILIES if f.model_type == name))


def _randomised(theirs, seed):
    """Gains and biases too, so that one in the wrong place is seen."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
    return theirs.eval()


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    """The same random model in both libraries, by way of a folder that `transformers` wrote."""
    torch.manual_seed(0)
    kind, keys = CASES[request.param]
    config = _class(kind).config_class(**(BASE | keys))
    config._attn_implementation = "eager"
    theirs = _randomised(_class(kind)(config), 1)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    found = model_folder.find(folder)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    return request.param, theirs, found, params


def _ours(architecture, params, tokens, scan=True, **more):
    def logits(params, tokens, more):
        model = bind(architecture, Runtime(scan_layers=scan), params)
        return model.unembed(model(tokens, **more))

    return jax.jit(logits)(params, jnp.asarray(tokens), more)


def _logits(theirs, tokens):
    with torch.no_grad():
        return theirs(torch.tensor(tokens), use_cache=False).logits.numpy()


def test_logits(pair):
    _, theirs, found, params = pair
    want = _logits(theirs, TOKENS)
    for scan in (False, True):
        np.testing.assert_allclose(_ours(found.architecture, params, TOKENS, scan), want, atol=1e-4)


def test_attention_to_both_sides_is_that_of_is_causal_false_but_for_windows(pair, monkeypatch):
    """A window to both sides is a token wider in transformers, so that such models are not exported."""
    _, theirs, found, params = pair
    a = found.architecture
    monkeypatch.setattr(theirs.config, "is_causal", False, raising=False)
    want = _logits(theirs, TOKENS)

    def logits(params):
        model = bind(a, Runtime(), params)
        return model.unembed(model(jnp.asarray(TOKENS), causal=False))

    difference = np.abs(jax.jit(logits)(params) - want).max()
    assert difference > 1e-2 if any(kind.window for kind in a.layer_pattern) else difference < 1e-4


def test_packed_rows(pair):
    """Windows and RoPE begin anew in each document; gradients are the sum of theirs of each document alone."""
    name, theirs, found, params = pair
    lengths = (5, 35, 8)  # the second is longer than windows, and than the positions that scaled RoPE was made for
    segments = np.broadcast_to(np.repeat([1, 2, 3], lengths), TOKENS.shape)
    positions = np.broadcast_to(np.concatenate([np.arange(n) for n in lengths]), TOKENS.shape)
    more = dict(segment_ids=jnp.asarray(segments), positions=jnp.asarray(positions, jnp.int32))
    a = found.architecture
    if name in FIRST:
        got = gradients.compare(a, params, theirs, TOKENS, lambda p: _ours(a, p, TOKENS, **more), lengths)
    else:
        got = _ours(a, params, TOKENS, **more)
    for segment in (1, 2, 3):
        where = segments[0] == segment
        np.testing.assert_allclose(np.asarray(got)[:, where], _logits(theirs, TOKENS[:, where]), atol=1e-4)


def test_export_has_the_same_tensors_logits_and_text(pair, tmp_path):
    name, theirs, found, params = pair
    model_folder.transfer(found.path, tmp_path / "ours", keep_card=True)
    model_folder.transfer(tmp_path / "ours", tmp_path / "exported", keep_card=False)
    kind = json.loads((tmp_path / "exported/config.json").read_text("utf-8"))["model_type"]
    assert model_folder.find(tmp_path / "exported").architecture == found.architecture
    before = load_file(str(found.path / "model.safetensors"))
    after = {k: v for file in (tmp_path / "exported").glob("*.safetensors") for k, v in load_file(str(file)).items()}
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key], err_msg=key)
    if kind == "kanana2_tiny":  # which `transformers` has not
        model_folder.transfer(tmp_path / "ours", tmp_path / "mellum", keep_card=False, family_name="mellum")
        again = _class("mellum").from_pretrained(tmp_path / "mellum", attn_implementation="eager").eval()
    else:
        again = _class(kind).from_pretrained(tmp_path / "exported", attn_implementation="eager").eval()
    np.testing.assert_allclose(_logits(again, TOKENS), _logits(theirs, TOKENS), atol=1e-6)
    if name not in FIRST:
        return
    prompt = np.array([1, 5, 9, 30, 7], np.int32)
    (ours,) = generate(params, Model(found.architecture, Runtime()), [prompt], max_new_tokens=64, stop=[60])
    with torch.no_grad():
        out = again.generate(
            torch.tensor(prompt[None].astype(np.int64)), max_new_tokens=64, do_sample=False, eos_token_id=60,
            pad_token_id=0,
        )  # fmt: skip
    assert list(ours) == [t for t in out[0, len(prompt) :].tolist() if t != 60]


# Classes that compute the same function of the same tensors.
SAME = {
    "llama_tied": ["mistral", "smollm3", "hyperclovax"],
    "olmo2": ["olmo3"],
    "qwen3_tied": ["mellum"],
    "exaone4_full": [],
}


@pytest.mark.parametrize("name", SAME)
def test_a_model_leaves_as_every_class_that_computes_it(tmp_path, name):
    torch.manual_seed(0)
    kind, keys = CASES[name]
    theirs = _randomised(_class(kind)(_class(kind).config_class(**(BASE | keys))), 1)
    theirs.save_pretrained(tmp_path / "f")
    a = model_folder.find(tmp_path / "f").architecture
    fitting = [f.model_type for f in FAMILIES if not f.lacks(a) and hasattr(transformers, f.class_name)]
    assert fitting == [kind, *SAME[name]] and family_of(a).model_type == kind
    for other in fitting:
        model_folder.transfer(tmp_path / "f", tmp_path / other, keep_card=False, family_name=other)
        again = _class(other).from_pretrained(tmp_path / other).eval()
        np.testing.assert_allclose(_logits(again, TOKENS), _logits(theirs, TOKENS), atol=1e-5, err_msg=other)


def test_the_text_part_of_gemma3(tmp_path, caplog):
    """A folder of text and pictures, whose names on disk begin with `language_model.`."""
    torch.manual_seed(0)
    text = BASE | GEMMA | dict(sliding_window=7, model_type="gemma3_text")
    vision = dict(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    theirs = _randomised(transformers.Gemma3ForConditionalGeneration(config), 1)
    theirs.save_pretrained(tmp_path / "f")
    model_folder.transfer(tmp_path / "f", tmp_path / "out", keep_card=False)
    assert "parts other than the text model are left out" in caplog.text
    again = transformers.Gemma3ForCausalLM.from_pretrained(tmp_path / "out").eval()
    np.testing.assert_allclose(_logits(again, TOKENS), _logits(theirs, TOKENS), atol=1e-5)
    found = model_folder.find(tmp_path / "f")
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    np.testing.assert_allclose(_ours(found.architecture, params, TOKENS), _logits(theirs, TOKENS), atol=1e-4)
