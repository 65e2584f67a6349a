"""Every family of models through everything that can be done with one; the table in docs/features.md says what is.

One small random model a family, in its folder; what it becomes is compared with plain formulas on its logits, or tensor
by tensor. What runs it takes one period of its layers, unrolled, which compiles soonest. The three operations that
compile the longest are of `COMPILED` in `make test`, and of the other families in `make check-more`.
"""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, log_softmax

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.inference.generate import generate
from kanana_jax.interop import families, model_folder
from kanana_jax.losses.distillation import DistillationConfig
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.plan.estimate import estimate
from kanana_jax.stages import distill, pretrain
from kanana_jax.stages.kind import Shapes
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.surgery import importance, prune, streaming, upscale
from kanana_jax.surgery.cuts import apply
from kanana_jax.training.optimizer import OptimizerConfig
from kanana_jax.training.schedule import ScheduleConfig
from kanana_jax.training.task import TrainConfig

SHAPE = dict(
    vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=64,
    init_std=0.2,
)  # fmt: skip
W, FULL = LayerKind(7), LayerKind()
YARN = RopeScaling("yarn", 4.0, 32)
GEMMA = dict(
    norm_placement="both", norm_unit_offset=True, activation="gelu_tanh", embedding_multiplier=math.sqrt(32),
    attention_multiplier=20**-0.5, logits_softcap=3.0, tied_embeddings=True,
)  # fmt: skip
MODELS = {
    "llama": dict(rope_scaling=RopeScaling("llama3", 8.0, 32)),
    "mistral": dict(layer_pattern=(W,)),
    "qwen2": dict(attention_bias="qkv", tied_embeddings=True),
    "qwen3": dict(qk_norm="head"),
    "smollm3": dict(layer_pattern=(FULL, LayerKind(rope=False)), tied_embeddings=True),
    "olmo2": dict(qk_norm="width", norm_placement="post"),
    "olmo3": dict(
        qk_norm="width", norm_placement="post", layer_pattern=(LayerKind(7, rope_scaled=False), FULL), rope_scaling=YARN
    ),
    "exaone4": dict(qk_norm="head", norm_placement="post", layer_pattern=(W, LayerKind(rope=False))),
    "gemma2": GEMMA | dict(attention_softcap=5.0, layer_pattern=(W, FULL)),
    "gemma3_text": GEMMA | dict(qk_norm="head", layer_pattern=(LayerKind(7, True, 1e4), FULL)),
    "hyperclovax": dict(
        norm_placement="both", embedding_multiplier=3.0, residual_multiplier=0.5, logits_multiplier=0.3,
        attention_multiplier=0.2,
    ),
    "kanana2_tiny": dict(
        qk_norm="head", tied_embeddings=True, layer_pattern=(LayerKind(7, rope_scaled=False), FULL), rope_scaling=YARN
    ),
    "mellum": dict(qk_norm="head", attention_bias="qkvo", layer_pattern=(LayerKind(7, True, 1e3), FULL)),
    "kanana_jax": dict(partial_rotary_factor=0.5, mlp_bias=True, attention_bias="qkvo"),
}  # fmt: skip
# Families that have every switch between them.
COMPILED = ("llama", "qwen2", "olmo3", "exaone4", "gemma2", "hyperclovax", "mellum", "kanana_jax")
COLUMNS = ("pre-train", "distil", "prune width", "prune depth", "up-scale", "plan", "generate", "export")
UNROLLED = Runtime(scan_layers=False)
ONE = make_mesh(MeshConfig(), jax.devices()[:1])
TRAIN = TrainConfig(
    tokens=48 * 4, batch_tokens=48, seq_len=24, optimizer=OptimizerConfig(1e-2, ScheduleConfig("constant", 0))
)


def table() -> dict[str, tuple[str, ...]]:
    """The rows of docs/features.md, by family."""
    text = (ROOT / "docs/features.md").read_text("utf-8")
    head = "| family | " + " | ".join(COLUMNS) + " |"
    lines = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): tuple(row[1:]) for row in cells}


TABLE = table()


def rows() -> Rows:
    """Two packed rows: documents of 9 and 15 tokens, and one of 24, longer than any window."""
    draw = np.random.default_rng(0)
    segments = np.array([[1] * 9 + [2] * 15, [1] * 24], np.int32)
    positions = np.array([[*range(9), *range(15)], [*range(24)]], np.int32)
    tokens = draw.integers(0, 64, (2, 25)).astype(np.int32)
    weights = np.ones((2, 24), np.float32)
    weights[0, 8] = 0
    fields = dict(
        inputs=tokens[:, :-1], targets=tokens[:, 1:], positions=positions, segment_ids=segments, weights=weights
    )
    return Rows(**{name: jnp.asarray(fields.get(name, np.ones((2, 24), np.int32))) for name in Rows._fields})


class Case:
    """A family's model; what several cells need is made once."""

    def __init__(self, name, folder):
        self.name, self.folder, self.a = name, folder, Architecture(**(SHAPE | MODELS[name]))
        self.rows = rows()
        draw = np.random.default_rng(1)  # gains and biases too, so that one in the wrong place is seen
        self.params = jax.tree.map(
            lambda x: np.asarray(x + draw.normal(0, 0.1, x.shape), np.float32),
            init_params(self.a, Runtime(), jax.random.key(0)),
        )
        special = {"bos_token_id": 1, "eos_token_id": 2}
        model_folder.write(folder / "m", self.a, self.params, model_folder.card(self.a), None, special)
        self.found = model_folder.find(folder / "m")
        # One period.
        self.model = Model(dataclasses.replace(self.a, num_layers=2), UNROLLED)
        self.short = {**self.params, "blocks": jax.tree.map(lambda x: x[:2], self.params["blocks"])}

    def cell(self, column) -> str:
        return TABLE[self.name][COLUMNS.index(column)]

    @functools.cached_property
    def logits(self):
        return logits(self.model, self.short, self.rows)

    @functools.cached_property
    def scores(self):
        config = importance.ImportanceConfig()
        return importance.score(config, Model(self.a), self.params, [self.rows], (2,))

    @functools.cached_property
    def child(self):
        """One at three quarters of its width, with half its heads and layers."""
        config = prune.PruneConfig(embed_dim=24, mlp_dim=32, num_heads=2, num_layers=2, layers="last")
        return self.cut(prune.cut_list(self.a, config, self.scores), "child")

    def cut(self, cuts, name):
        streaming.apply_to_folder(cuts, self.found, self.folder / name, model_folder.card(cuts.after))
        made = model_folder.find(self.folder / name)
        assert made.architecture == cuts.after
        return types.SimpleNamespace(found=made, params=loaded(made), cuts=cuts)

    def same_layers(self, made):
        """Each new layer is the old one that the list names, of its kind, bit by bit."""
        cuts = made.cuts
        assert [self.a.kinds[layer] for layer in cuts.layers] == list(cuts.after.kinds)
        jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[list(cuts.layers)]),
                     made.params["blocks"], self.params["blocks"])  # fmt: skip
        for name in self.params.keys() - {"blocks"}:
            jax.tree.map(np.testing.assert_array_equal, made.params[name], self.params[name])


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


compiled = pytest.mark.parametrize(
    "case", [name if name in COMPILED else pytest.param(name, marks=pytest.mark.more) for name in MODELS], indirect=True
)


def loaded(found):
    return jax.device_get(model_folder.load_params(found, Runtime(), ONE))


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, rows):
    return model.bind(params).unembed(model(params, rows)[0])


def logits(model, params, rows):
    return np.asarray(_logits(model, params, rows))


def first_steps(loss, params, rows, others=None):
    """A loss per token and its metric before, and after a step along its gradient, which reaches every parameter."""

    def mean(params, others):
        output = loss(params, rows, jax.random.key(0), others)
        return output.loss / output.weight, output

    step = jax.jit(jax.value_and_grad(mean, has_aux=True))
    (_, first), grads = step(params, others)
    assert all(bool(np.asarray(g).any()) for g in jax.tree.leaves(grads))
    norm = math.sqrt(sum(float(jnp.square(g).sum()) for g in jax.tree.leaves(grads)))
    after = jax.tree.map(lambda p, g: np.asarray(p - 0.05 / norm * g), params, grads)
    (_, second), _ = step(after, others)
    return [{key: float(value / o.weight) for key, value in o.metrics.items()} for o in (first, second)]


def _mean(values, rows):
    return float((values * np.asarray(rows.weights)).sum() / np.asarray(rows.weights).sum())


def test_every_family_has_its_row():
    kinds = [family.model_type for family in families.FAMILIES if not family.inner]
    assert list(TABLE) == list(MODELS) == kinds
    for name in MODELS:
        assert families.family_of(Architecture(**(SHAPE | MODELS[name]))).model_type == name


def _switches(names) -> set[str]:
    """Fields that are set, with the kinds of those that have some."""
    found = set()
    for name in names:
        a = Architecture(**(SHAPE | MODELS[name]))
        found |= {f"{key}={value}" if isinstance(value, str) else key for key, value in MODELS[name].items()}
        found |= {f"scaling={a.rope_scaling.type}"} if a.rope_scaling else set()
        for kind in a.kinds:
            found |= {f.name for f in dataclasses.fields(kind) if getattr(kind, f.name) != f.default}
    return found


def test_the_compiled_families_have_every_switch():
    assert _switches(COMPILED) == _switches(MODELS)


@compiled
def test_pretrain(case):
    first, second = first_steps(pretrain.make_loss(case.model, z_loss=0.0, chunk=48), case.short, case.rows)
    own = np.take_along_axis(log_softmax(case.logits), np.asarray(case.rows.targets)[..., None], -1)[..., 0]
    assert first["nll"] == pytest.approx(-_mean(own, case.rows), rel=1e-4)
    assert second["nll"] < first["nll"] and case.cell("pre-train") == "yes"


@compiled
def test_distil(case):
    """A pruned child learns from the model that it was cut from."""
    child, params = Model(case.child.cuts.after, UNROLLED), case.child.params
    loss = distill.make_loss(child, case.model, config=DistillationConfig(), chunk=48)
    first, second = first_steps(loss, params, case.rows, case.short)
    ours, theirs = log_softmax(logits(child, params, case.rows)), log_softmax(case.logits)
    apart = (np.exp(theirs) * (theirs - ours)).sum(-1)
    assert first["divergence"] == pytest.approx(_mean(apart, case.rows), rel=1e-3)
    assert second["divergence"] < first["divergence"] and case.cell("distil") == "yes"


def test_plan(case):
    """The engine's step on shapes; attention counts the keys that a token sees, its window at most."""
    config = TrainingConfig(kind="pretrain", model=case.a, mixture={"text": 1.0}, train=TRAIN)
    shapes = Shapes(0, Runtime(), ONE, {}, lambda name: case.a)
    made = pretrain.programs("s", config, shapes)
    seen = sum(min(i + 0.5, kind.window or 24) for kind in case.a.kinds for i in range(24)) / 24
    attention = 4 * case.a.num_heads * case.a.head_dim * seen
    assert made.flops_per_token == pytest.approx(3 * (2 * counts.matmul_parameters(case.a) + attention), rel=0.01)
    found = estimate(lambda shapes: pretrain.programs("s", config, shapes), shapes)
    each = 4 * 48 * case.a.embed_dim
    assert 2 * each < found["activations"] / case.a.num_layers  # the inputs of attention and of the MLP, and more
    assert found["parameters"] == 4 * counts.parameters(case.a) and case.cell("plan") == "yes"


def test_prune_width(case):
    cuts, params = case.child.cuts, case.child.params
    q = case.params["blocks"]["attention"]["q"]
    for i, layer in enumerate(cuts.layers):
        kept = q[layer][np.ix_(cuts.channels, cuts.heads[i])]
        np.testing.assert_array_equal(params["blocks"]["attention"]["q"][i], kept)
    # The same cut with the multiplier that the model had computes the same.
    kept = dataclasses.replace(cuts.after, embedding_multiplier=case.a.embedding_multiplier)
    same = dataclasses.replace(cuts, after=kept)
    if same != cuts:
        plain = logits(Model(same.after, UNROLLED), apply(same, case.params), case.rows)
        np.testing.assert_allclose(logits(Model(cuts.after, UNROLLED), params, case.rows), plain, atol=1e-4)
    uneven = prune.shape(case.a, prune.PruneConfig(embed_dim=27, num_heads=2))
    stored = case.child.found.family.model_type, families.family_of(uneven).model_type
    assert case.cell("prune width") == ", ".join(f"`{name}`" for name in dict.fromkeys(stored))


def test_prune_depth(case):
    made = case.cut(prune.cut_list(case.a, prune.PruneConfig(num_layers=2), case.scores), "shallow")
    case.same_layers(made)
    assert made.found.family is case.found.family
    odd = prune.PruneConfig(num_layers=3)
    if len(case.a.period) == 1:
        case.same_layers(case.cut(prune.cut_list(case.a, odd, case.scores), "odd"))
        assert case.cell("prune depth") == "any layers"
        return
    with pytest.raises(ConfigError, match="differ in their attention and repeat every 2: remove a multiple of 2"):
        prune.shape(case.a, odd)
    assert case.cell("prune depth") == "whole periods"


def test_upscale(case):
    done = []
    for method in ("overlap", "stack", "identity", "neighbour"):
        try:
            cuts = upscale.cut_list(case.a, upscale.UpscaleConfig(6, method))
        except ConfigError as error:
            assert "differ in their attention and repeat every 2: use method 'overlap'" in str(error)
            continue
        made = case.cut(cuts, method)
        if method != "identity":
            case.same_layers(made)
        assert made.found.family is case.found.family
        done.append(method)
    assert case.cell("up-scale") == ("any method" if len(done) == 4 else ", ".join(f"`{method}`" for method in done))


@compiled
def test_generate(case):
    """Past the window, with a cache: each token is the best after all before it."""
    prompt = np.array([1, 5, 9, 30, 7], np.int32)
    (new,) = generate(case.short, case.model, [prompt], max_new_tokens=16)
    text = np.concatenate([prompt, new])[None]
    inputs = jnp.asarray(np.pad(np.repeat(text, 2, 0), ((0, 0), (0, 3))))
    positions = jnp.asarray(np.repeat(np.arange(24, dtype=np.int32)[None], 2, 0))
    whole = case.rows._replace(inputs=inputs, positions=positions, segment_ids=jnp.ones_like(positions))
    np.testing.assert_array_equal(logits(case.model, case.short, whole)[0, 4:20].argmax(-1), new)
    assert case.cell("generate") == "yes"


def test_export(case):
    try:
        out = model_folder.transfer(case.found.path, case.folder / "out", keep_card=False)
    except UserError as error:
        assert "no public class computes this model; the nearest, LlamaForCausalLM, has no partial_rotary" in str(error)
        assert not (case.folder / "out").exists() and case.cell("export") == "refused"
        return
    found = model_folder.find(out.path)
    assert found.architecture == case.a and not found.card
    jax.tree.map(np.testing.assert_array_equal, loaded(found), case.params)
    assert case.cell("export") == f"`{found.family.class_name}`"
