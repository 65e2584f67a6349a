"""Logits, gradients and greedy text against the classes of `transformers`, float32, random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream.packing import Rows
from kanana_jax.inference.generate import generate
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import family_of
from kanana_jax.models.architecture import Architecture, RopeScaling, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import bind
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.surgery import importance, prune, streaming

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gradients = pytest.importorskip("gradients")  # which needs torch

BASE = dict(
    vocab_size=199,
    embed_dim=48,
    mlp_dim=80,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    max_seq_len=256,
    rope_theta=10_000.0,
    init_std=0.2,
)
CASES = {
    "untied": Architecture(**BASE),
    "tied": Architecture(**BASE, tied_embeddings=True),
    "mha": Architecture(**{**BASE, "num_kv_heads": 6}),
    "llama3": Architecture(**BASE, rope_scaling=RopeScaling("llama3", 8.0, 64, 1.0, 4.0)),
    "yarn": Architecture(**BASE, rope_scaling=RopeScaling("yarn", 4.0, 64)),
    "qwen3": Architecture(**BASE, qk_norm="head"),
    "qwen3_tied": Architecture(**BASE, qk_norm="head", tied_embeddings=True),
}
PRUNED = ["llama3", "qwen3"]


def _class(architecture):
    """The class of `transformers` that the model's family is of."""
    return getattr(transformers, family_of(architecture).class_name)


def _theirs(architecture, seed=0):
    """Their model with random weights; gains too, so that one in the wrong place is seen."""
    torch.manual_seed(seed)
    config = family_of(architecture).to_config(architecture, "float32", {"bos_token_id": 1, "eos_token_id": 2})
    config = _class(architecture).config_class(**config)
    config._attn_implementation = "eager"
    theirs = _class(architecture)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
    return theirs


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    """The same random model in both libraries, through a folder that `transformers` wrote."""
    architecture = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    theirs = _theirs(architecture)
    theirs.save_pretrained(folder)
    found = model_folder.find(folder)
    assert found.architecture == architecture
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return architecture, theirs, model_folder.load_params(found, Runtime(), mesh), folder


def _ours(architecture, params, tokens, segments, scan):
    model = bind(architecture, Runtime(scan_layers=scan), params)
    positions = None
    if segments is not None:
        starts = np.array([[np.argmax(row == s) for s in row] for row in segments])
        positions = jnp.asarray(np.arange(tokens.shape[1])[None] - starts, jnp.int32)
        segments = jnp.asarray(segments)
    return model.unembed(model(jnp.asarray(tokens), positions=positions, segment_ids=segments))


@pytest.mark.parametrize("scan", [True, False])
def test_logits(pair, scan):
    architecture, theirs, params, _ = pair
    tokens = np.random.default_rng(0).integers(3, 199, (2, 96))
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(_ours(architecture, params, tokens, None, scan), want, atol=1e-4)


def test_packed_logits_equal_each_document_alone(pair):
    architecture, theirs, params, _ = pair
    tokens = np.random.default_rng(1).integers(3, 199, (1, 64))
    segments = np.repeat([1, 2, 3], [20, 33, 11])[None]
    got = np.asarray(_ours(architecture, params, tokens, segments, True))
    for segment in (1, 2, 3):
        where = segments[0] == segment
        with torch.no_grad():
            want = theirs(torch.tensor(tokens[:, where])).logits.numpy()
        np.testing.assert_allclose(got[:, where], want, atol=1e-4)


def test_gradients(pair):
    architecture, theirs, params, _ = pair
    tokens = np.random.default_rng(2).integers(3, 199, (2, 48))
    gradients.compare(architecture, params, theirs, tokens, lambda p: _ours(architecture, p, tokens, None, True))


def test_exported_model_writes_the_same_greedy_text(pair, tmp_path):
    architecture, theirs, params, folder = pair
    exported = tmp_path / "exported"
    model_folder.transfer(folder, exported, keep_card=False)
    again = _class(architecture).from_pretrained(exported).eval()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    prompts = [np.array([1, 5, 9, 30], np.int32), np.array([1, 77], np.int32)]
    ours = generate(params, Model(architecture, Runtime()), prompts, max_new_tokens=20, stop=[2])
    for prompt, mine in zip(prompts, ours):
        with torch.no_grad():
            out = again.generate(
                torch.tensor(prompt[None].astype(np.int64)),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=0,
            )
        want = [t for t in out[0, len(prompt) :].tolist() if t not in (0, 2)]
        assert list(mine) == want


def test_bfloat16_folder_of_many_files_loads_bit_exact(pair, tmp_path):
    architecture, theirs, _, _ = pair
    folder = tmp_path / "bf16"
    theirs.to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    theirs.to(torch.float32)
    assert len(list(folder.glob("*.safetensors"))) > 1
    model_folder.transfer(folder, tmp_path / "ours", keep_card=True)
    assert json.loads((tmp_path / "ours/model.json").read_text())["architecture"]["embed_dim"] == 48
    again = _class(architecture).from_pretrained(tmp_path / "ours", dtype=torch.bfloat16).state_dict()
    for name, tensor in _class(architecture).from_pretrained(folder, dtype=torch.bfloat16).state_dict().items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("name", PRUNED)
def test_a_foreign_model_is_pruned_and_loads_in_transformers(tmp_path, name):
    """import → importance → prune → export: `transformers` computes our logits, and those of its own masked model."""
    architecture = CASES[name]
    _theirs(architecture, 1).save_pretrained(tmp_path / "foreign")
    model_folder.transfer(tmp_path / "foreign", tmp_path / "ours", keep_card=True)
    found = model_folder.find(tmp_path / "ours")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = model_folder.load_params(found, Runtime(), mesh)
    tokens = np.random.default_rng(3).integers(3, 199, (4, 32))
    batch = Rows(
        inputs=tokens,
        targets=np.zeros((4, 32), int),
        segment_ids=np.ones((4, 32), int),
        positions=np.tile(np.arange(32), (4, 1)),
        weights=np.ones((4, 32), np.float32),
        source=np.zeros(4, int),
    )
    scores = importance.score(importance.ImportanceConfig(), Model(architecture, Runtime()), params, [batch])
    cut = prune.PruneConfig(mlp_dim=32, num_heads=4, num_layers=2)
    cuts = prune.cut_list(architecture, cut, scores)
    streaming.apply_to_folder(cuts, found, tmp_path / "pruned", model_folder.card(cuts.after))
    model_folder.transfer(tmp_path / "pruned", tmp_path / "exported", keep_card=False)

    again = _class(architecture).from_pretrained(tmp_path / "exported").eval()
    pruned = model_folder.load_params(model_folder.find(tmp_path / "pruned"), Runtime(), mesh)
    # Their own model without what the cut list drops: layers left out, columns of `down` and `o` at zero.
    masked = _class(architecture).from_pretrained(tmp_path / "foreign").eval()
    masked.model.layers = torch.nn.ModuleList(masked.model.layers[i] for i in cuts.layers)
    with torch.no_grad():
        for i, layer in enumerate(masked.model.layers):
            layer.self_attn.layer_idx = i
            neurons, heads = torch.zeros(80), torch.zeros(6, 16)
            neurons[list(cuts.neurons[i])] = 1
            heads[list(cuts.heads[i])] = 1
            layer.mlp.down_proj.weight *= neurons
            layer.self_attn.o_proj.weight *= heads.flatten()
        want = again(torch.tensor(tokens)).logits.numpy()
        alone = masked(torch.tensor(tokens), use_cache=False).logits.numpy()
    np.testing.assert_allclose(_ours(cuts.after, pruned, tokens, None, True), want, atol=1e-4)
    np.testing.assert_allclose(want, alone, atol=1e-4)
