"""Losses and gradients of TRL's trainers, run live on the same random model and batch as our stages, packed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream import mismatched, packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import family_of
from kanana_jax.interop.weights import at
from kanana_jax.losses.kto import KtoConfig
from kanana_jax.losses.preference import PreferenceConfig
from kanana_jax.losses.reward import RewardLossConfig
from kanana_jax.models import reward as heads
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.stages import dpo, kto, reward, sft

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")
trl = pytest.importorskip("trl")

T, WORDS = 64, 60
ARCHITECTURE = Architecture(
    vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=128,
    rope_theta=10_000.0, init_std=0.15,
)  # fmt: skip
FAMILY = family_of(ARCHITECTURE)


@pytest.fixture(scope="module")
def tokenizer():
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": 3 + i for i in range(WORDS)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    named = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **named)


def _random(kind, seed):
    torch.manual_seed(seed)
    config = FAMILY.to_config(ARCHITECTURE, "float32", {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0})
    config = transformers.LlamaConfig(**config, num_labels=1)
    config._attn_implementation = "eager"
    return kind(config).float()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A policy and a reference, as `transformers` writes them."""
    found = []
    for seed in (0, 1):
        found.append(tmp_path_factory.mktemp(f"model{seed}"))
        _random(transformers.LlamaForCausalLM, seed).save_pretrained(found[-1])
    return found


def _theirs(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def _ours(folder):
    found = model_folder.find(folder)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    return Model(found.architecture), params


def _text(rng, low, high):
    return " ".join(f" w{i}" for i in rng.integers(0, WORDS, rng.integers(low, high)))


def _pairs(count=5):
    rng = np.random.default_rng(0)
    return [
        {"prompt": _text(rng, 2, 6), "chosen": _text(rng, 1, 7), "rejected": _text(rng, 1, 9)} for _ in range(count)
    ]


def _arguments(config, tmp_path, **more):
    shared = dict(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    return config(**shared, per_device_train_batch_size=5, disable_tqdm=True, **more)


def _batch(trainer):
    rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    return dict(trainer.data_collator(rows).items())


def _examples(batch, signs=None):
    """The sequences of a padded batch as ours."""
    found = []
    parts = (batch[key].numpy() for key in ("input_ids", "attention_mask", "completion_mask"))
    for row, (tokens, exists, weighs) in enumerate(zip(*parts)):
        exists = exists.astype(bool)
        sign = 1 if signs is None else signs[row]
        found.append(Example(tokens[exists].astype(np.int32), sign * weighs[exists].astype(np.float32)))
    return found


def _compare(loss, ours, theirs, params):
    """Our mean loss and its gradients, against what `loss.backward()` left in their model."""
    loss.backward()
    value, grads = jax.jit(jax.value_and_grad(ours))(params)
    assert float(value) == pytest.approx(float(loss.detach()), abs=1e-4)
    named = dict(theirs.named_parameters())
    compared = 0
    for group in FAMILY.groups(ARCHITECTURE):
        for tensor in group:
            if tensor.name in named and named[tensor.name].grad is not None:
                grad = at(grads, tensor.path)
                grad = np.asarray(grad if tensor.layer is None else grad[tensor.layer])
                want = named[tensor.name].grad.numpy()
                np.testing.assert_allclose(tensor.to_theirs(grad), want, atol=1e-4, err_msg=tensor.name)
                compared += bool(np.abs(want).max() > 1e-3)
    assert compared > 10
    return grads


def _mean(loss, batch):
    def mean(params):
        found = loss(params, batch, jax.random.key(0), None)
        return found.loss / found.weight

    return mean


PREFERENCES = {
    "sigmoid": (dict(loss_type=["sigmoid"], beta=0.3), PreferenceConfig(beta=0.3)),
    "ipo": (dict(loss_type=["ipo"], beta=0.3), PreferenceConfig(loss="ipo", beta=0.3, length_normalised=True)),
    "hinge": (dict(loss_type=["hinge"], beta=0.05), PreferenceConfig(loss="hinge", beta=0.05)),
    "robust": (
        dict(loss_type=["robust"], beta=0.3, label_smoothing=0.2),
        PreferenceConfig(loss="robust", beta=0.3, label_smoothing=0.2),
    ),
    "apo_zero": (dict(loss_type=["apo_zero"], beta=0.3), PreferenceConfig(loss="apo_zero", beta=0.3)),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_dpo(name, folders, tokenizer, tmp_path):
    settings, config = PREFERENCES[name]
    theirs, reference = map(_theirs, folders)
    trainer = trl.DPOTrainer(
        model=theirs,
        ref_model=reference,
        args=_arguments(trl.DPOConfig, tmp_path, **settings),
        train_dataset=datasets.Dataset.from_list(_pairs()),
        processing_class=tokenizer,
    )
    batch = _batch(trainer)
    examples = _examples(batch)
    rows = packing.pack(list(zip(examples[:5], examples[5:])), T, whole=True)
    assert len(rows.inputs) < 5
    (model, params), (_, fixed) = map(_ours, folders)
    by_reference = dpo.target_log_probs(model, fixed, jax.tree.map(jnp.asarray, rows), 16)
    ours = _mean(dpo.make_loss(model, config=config, chunk=16), dpo.PairRows(rows, by_reference))
    theirs.train()
    _compare(trainer.compute_loss(theirs, batch), ours, theirs, params)


def test_kto(folders, tokenizer, tmp_path):
    rng = np.random.default_rng(1)
    lines = [
        {"prompt": _text(rng, 2, 5), "completion": _text(rng, 1, 7), "label": bool(label)} for label in (1, 0, 1, 1, 0)
    ]
    theirs, reference = map(_theirs, folders)
    trainer = trl.KTOTrainer(
        model=theirs,
        ref_model=reference,
        args=_arguments(trl.KTOConfig, tmp_path, beta=0.3, desirable_weight=1.2),
        train_dataset=datasets.Dataset.from_list(lines),
        processing_class=tokenizer,
    )
    batch = _batch(trainer)
    signs = np.where(np.asarray(batch["label"]), 1, -1)
    # Theirs gives each prompt the answer before its own; ours, in the opposite order, the one behind: the same pairs.
    examples = _examples(batch, signs)[::-1]
    rows = packing.pack([(example,) for example in examples], 2 * T, whole=True)
    mixed = mismatched.of_batch(rows)
    assert len(rows.inputs) == 1 and mixed.segment_ids.max() == 5
    (model, params), (_, fixed) = map(_ours, folders)
    of_reference = functools.partial(dpo.target_log_probs, model, fixed, chunk=16)
    ready = kto.KtoRows(rows, mixed, *(of_reference(jax.tree.map(jnp.asarray, each)) for each in (rows, mixed)))
    ours = _mean(kto.make_loss(model, config=KtoConfig(beta=0.3, desirable=1.2), chunk=16), ready)
    theirs.train()
    loss = trainer._compute_loss(theirs, batch, False)
    _compare(loss, ours, theirs, params)
    found = kto.make_loss(model, config=KtoConfig(beta=0.3), chunk=16)(params, ready, jax.random.key(0), None)
    kl = float(found.metrics["kl"] / found.weight)
    assert kl > 0.1 and kl == pytest.approx(trainer._metrics["train"]["kl"][-1], abs=1e-3)


def test_simpo(folders, tokenizer, tmp_path):
    cpo = pytest.importorskip("trl.experimental.cpo")
    theirs = _theirs(folders[0])
    trainer = cpo.CPOTrainer(
        model=theirs,
        args=_arguments(cpo.CPOConfig, tmp_path, loss_type="simpo", beta=2.0, simpo_gamma=0.5, cpo_alpha=0.0),
        train_dataset=datasets.Dataset.from_list(_pairs()),
        processing_class=tokenizer,
    )
    batch = _batch(trainer)
    pairs = []
    for row in range(5):
        pair = []
        for answer in ("chosen", "rejected"):
            there = batch[f"{answer}_attention_mask"][row].bool().numpy()
            tokens = batch[f"{answer}_input_ids"][row].numpy()[there].astype(np.int32)
            weights = (batch[f"{answer}_labels"][row].numpy()[there] != -100).astype(np.float32)
            pair.append(Example(tokens, weights))
        pairs.append(tuple(pair))
    rows = packing.pack(pairs, T, whole=True)
    model, params = _ours(folders[0])
    config = PreferenceConfig(loss="simpo", beta=2.0, margin=0.5)
    ready = dpo.PairRows(rows, np.zeros_like(rows.weights))
    theirs.train()
    loss, _ = trainer.get_batch_loss_metrics(theirs, batch, train_eval="train")
    _compare(loss, _mean(dpo.make_loss(model, config=config, chunk=16), ready), theirs, params)


def test_sft(folders, tokenizer, tmp_path):
    theirs = _theirs(folders[0])
    lines = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in _pairs()]
    trainer = trl.SFTTrainer(
        model=theirs,
        args=_arguments(trl.SFTConfig, tmp_path, completion_only_loss=True),
        train_dataset=datasets.Dataset.from_list(lines),
        processing_class=tokenizer,
    )
    batch = _batch(trainer)
    examples = []
    for tokens, labels, there in zip(*(batch[key].numpy() for key in ("input_ids", "labels", "attention_mask"))):
        length = there.sum()
        examples.append((Example(tokens[:length].astype(np.int32), (labels[:length] != -100).astype(np.float32)),))
    rows = packing.pack(examples, T, whole=True)
    model, params = _ours(folders[0])
    theirs.train()
    _compare(trainer.compute_loss(theirs, batch), _mean(sft.make_loss(model, chunk=16), rows), theirs, params)


@pytest.mark.parametrize("margin, centring", [(False, None), (True, 0.1)])
def test_reward(margin, centring, tokenizer, tmp_path):
    theirs = _random(transformers.LlamaForSequenceClassification, 2)
    pairs = [
        {"chosen": p["prompt"] + " " + p["chosen"], "rejected": p["prompt"] + " " + p["rejected"]} for p in _pairs()
    ]
    margins = [0.5, 0, 1.5, 0.1, 2]
    if margin:
        pairs = [pair | {"margin": own} for pair, own in zip(pairs, margins)]
    trainer = trl.RewardTrainer(
        model=theirs,
        args=_arguments(trl.RewardConfig, tmp_path, center_rewards_coefficient=centring),
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=tokenizer,
    )
    batch = _batch(trainer)
    examples = []
    for row, (tokens, there) in enumerate(zip(batch["input_ids"].numpy(), batch["attention_mask"].numpy())):
        tokens = tokens[there.astype(bool)]
        weights = np.append(np.zeros(len(tokens) - 2), [1.0, 1.0, 1.0 + margin * margins[row % 5]])
        examples.append(Example(np.append(tokens, 1).astype(np.int32), weights.astype(np.float32)))
    rows = packing.pack(list(zip(examples[:5], examples[5:])), T, whole=True)
    # The backbone and the head as a reward model of ours would hold them.
    folder = tmp_path / "model"
    whole = _random(transformers.LlamaForCausalLM, 3)
    whole.model.load_state_dict(theirs.model.state_dict())
    whole.save_pretrained(folder)
    model, params = _ours(folder)
    params = {**params, heads.HEAD: jnp.asarray(theirs.score.weight.detach().numpy()[0])}
    ours = _mean(reward.make_loss(model, config=RewardLossConfig(margin, centring or 0.0)), rows)
    theirs.train()
    grads = _compare(trainer.compute_loss(theirs, batch), ours, theirs, params)
    np.testing.assert_allclose(grads[heads.HEAD], theirs.score.weight.grad.numpy()[0], atol=1e-4)


def test_transformers_reads_our_reward_models(tmp_path):
    theirs = _random(transformers.LlamaForCausalLM, 4)
    theirs.save_pretrained(tmp_path / "plain")
    model, params = _ours(tmp_path / "plain")
    head = np.random.default_rng(0).normal(size=32).astype(np.float32)
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    card = model_folder.card(ARCHITECTURE)
    model_folder.write(tmp_path / "reward", ARCHITECTURE, params, card, None, special, head=jnp.asarray(head))
    read = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", num_labels=1, dtype=torch.float32
    ).eval()
    tokens = np.random.default_rng(1).integers(3, 63, (3, 12))
    rows = packing.pack([(Example(np.append(row, 1).astype(np.int32)),) for row in tokens], 12, whole=True)
    scores = heads.scores(model, {**params, heads.HEAD: jnp.asarray(head)}, jax.tree.map(jnp.asarray, rows))
    with torch.no_grad():
        want = read(torch.tensor(tokens)).logits[:, 0].numpy()
    np.testing.assert_allclose(scores[:, -1], want, atol=1e-4)
