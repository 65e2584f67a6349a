"""The composed maps of two surgeries pick, from the oldest model, the very weights that the youngest has."""

import json
import shutil

import jax
import numpy as np
import pytest

from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import parent_path
from kanana_jax.interop.lineage import lineage, made_from, origin, training_cost
from kanana_jax.models import transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.stages import cut
from kanana_jax.surgery import upscale
from kanana_jax.surgery.cuts import CutList

A = Architecture(
    vocab_size=32, embed_dim=16, mlp_dim=16, num_layers=5, num_heads=2, num_kv_heads=2, head_dim=4, max_seq_len=32,
    tied_embeddings=False,
)  # fmt: skip


def _cut(before, layers, channels):
    after = Architecture(**(before.to_dict() | dict(num_layers=len(layers), embed_dim=len(channels or ()) or 16)))
    return CutList(before, after, layers, (False,) * len(layers), channels)


def _params(seed):
    rng = np.random.default_rng(seed)
    shapes = transformer.abstract_params(A, Runtime())
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """teacher → depth → (trained on) → width → both; each stage a folder."""
    root = tmp_path_factory.mktemp("family")
    params = _params(0)
    model_folder.write(root / "teacher/model", A, params, model_folder.card(A, stage="teacher"), None, {})
    cuts = {
        "depth": ("teacher", (0, 1, 3, 4), None),
        "width": ("depth", (0, 1, 2, 3), (1, 2, 4, 5, 7, 8, 11, 12, 14, 15)),
        "both": ("width", (0, 2, 3), (0, 2, 3, 6, 7, 9)),
    }
    for name, (parent, layers, channels) in cuts.items():
        found = model_folder.find(root / parent)
        cut.carry_out(_cut(found.architecture, layers, channels), found, root / name, name, {}, {})
    return root


def _line(root, *names):
    return [model_folder.find(root / name) for name in names]


def test_the_maps_of_several_prunings_are_joined(family):
    found = origin(_line(family, "both", "width", "depth", "teacher"), _line(family, "teacher"))
    assert found.layers == (0, 3, 4) and len(found.channels) == 6
    old, young = (model_folder.find(family / name) for name in ("teacher", "both"))
    channels = list(found.channels)
    young, old = model_folder.open_weights(young), model_folder.open_weights(old)
    np.testing.assert_array_equal(young.outer()["embedding"], old.outer()["embedding"][:, channels])
    for new, layer in enumerate(found.layers):
        ours, theirs = young.layer(new), old.layer(layer)
        np.testing.assert_array_equal(ours["attention_norm"]["scale"], theirs["attention_norm"]["scale"][channels])


def test_cards_tell_the_lineage(family):
    names = [m.path.parent.name for m in lineage(model_folder.find(family / "both"))]
    assert names == ["both", "width", "depth", "teacher"]
    lines = (lineage(model_folder.find(family / name)) for name in ("both", "depth"))
    assert origin(*lines).layers == (0, 2, 3)


def test_a_teacher_that_was_trained_on_has_the_same_parts(family, tmp_path):
    """As with teacher correction: pruned from `teacher`, taught by what became of it."""
    old = model_folder.find(family / "teacher")
    params = _params(1)
    model_folder.write(
        tmp_path / "later/model", A, params, model_folder.card(A, parent=str(old.path)), None, {}
    )  # fmt: skip
    later = model_folder.find(tmp_path / "later")
    found = origin(_line(family, "depth", "teacher"), lineage(later))
    assert found.layers == (0, 1, 3, 4) and found.channels is None
    # But not what went through a surgery of its own.
    with pytest.raises(UserError, match="no surgery.json leads"):
        origin(_line(family, "depth", "teacher"), lineage(_line(family, "width")[0]))


def test_up_scaling_maps_copies(family, tmp_path):
    parent = model_folder.find(family / "teacher")
    cuts = upscale.cut_list(parent.architecture, upscale.UpscaleConfig(7))
    cut.carry_out(cuts, parent, tmp_path / "deep", "deep", {}, {})
    report = json.loads((tmp_path / "deep/surgery.json").read_text())
    found = origin(lineage(model_folder.find(tmp_path / "deep")), [parent])
    assert found.layers == tuple(report["layers"]) and found.channels is None


def test_unrelated_models_and_old_reports_are_told(family):
    with pytest.raises(UserError, match="hidden states cannot be compared: no surgery.json leads from .*teacher"):
        origin(_line(family, "both", "width"), _line(family, "teacher"))
    file = family / "width/surgery.json"
    text = file.read_text()
    report = json.loads(text)
    del report["channels"]
    file.write_text(json.dumps(report))
    with pytest.raises(UserError, match="older version"):
        origin(_line(family, "both", "width", "depth", "teacher"), _line(family, "teacher"))
    file.write_text(text)


def test_the_fingerprint_is_of_the_weights_and_not_of_the_files(family, tmp_path):
    teacher = model_folder.find(family / "teacher")
    whole = model_folder.fingerprint(teacher)
    model_folder.transfer(teacher.path, tmp_path / "copy", keep_card=False)
    assert model_folder.fingerprint(model_folder.find(tmp_path / "copy")) == whole
    params = _params(0)
    params["blocks"]["mlp"]["up"][4, 3, 2] *= 1.001
    model_folder.write(tmp_path / "other", A, params, model_folder.card(A), None, {})
    assert model_folder.fingerprint(model_folder.find(tmp_path / "other")) != whole


def test_parents_do_not_depend_on_the_current_folder(family, tmp_path, monkeypatch):
    """Within a workdir they are relative to the model, so that it can be moved; elsewhere absolute."""
    moved = tmp_path / "moved"
    shutil.copytree(family, moved)
    for file in moved.glob("*/model/model.json"):
        card = json.loads(file.read_text())
        assert not card["parent"] or card["parent"].startswith("../../"), card["parent"]
    monkeypatch.chdir(tmp_path)
    line = list(lineage(model_folder.find(moved / "both")))
    assert [m.path.parent.name for m in line] == ["both", "width", "depth", "teacher"]
    assert all(m.path.resolve().is_relative_to(moved) for m in line)
    assert parent_path(moved / "width/model", tmp_path / "other/x/model") == str(moved / "width/model")
    old = moved / "width/model/model.json"  # as older versions wrote it: from where `kanana` was called
    old.write_text(json.dumps(json.loads(old.read_text()) | {"parent": "moved/depth/model"}))
    assert len(list(lineage(model_folder.find(moved / "both")))) == 4


def _names(folder):
    return [m.path.parent.name for m in lineage(model_folder.find(folder))]


def _with_parent(folder, parent):
    file = folder / "model/model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"parent": parent}))


def test_a_line_that_comes_back_to_a_model_ends_there(family, tmp_path, caplog):
    """By a cycle, by itself, or by way of a link: each model is counted once, and evaluation goes on."""
    turned = tmp_path / "turned"
    shutil.copytree(family, turned)
    _with_parent(turned / "teacher", "../../both/model")
    assert _names(turned / "both") == ["both", "width", "depth", "teacher"]
    assert "teacher/model/model.json: its parent ../../both/model is its own descendant: correct 'parent'" in caplog.text
    (turned / "again").symlink_to(turned / "both")
    _with_parent(turned / "both", "../../again/model")
    assert _names(turned / "both") == ["both"]
    _with_parent(turned / "both", ".")
    assert _names(turned / "both") == ["both"]


def test_a_parent_that_is_not_there_is_told_wherever_one_stands(family, tmp_path, monkeypatch, caplog):
    """A path that an older version noted from the folder above is found from the model, never from the current folder."""
    moved = tmp_path / "here/moved"
    shutil.copytree(family, moved)
    _with_parent(moved / "width", "moved/depth/model")
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        assert _names(moved / "both") == ["both", "width", "depth", "teacher"]
    assert not caplog.text
    shutil.copytree(family / "depth", tmp_path / "elsewhere/gone/depth")  # what stands there is another one
    _with_parent(moved / "width", "gone/depth/model")
    assert _names(moved / "both") == ["both", "width"]
    assert "its parent gone/depth/model does not exist" in caplog.text


def test_a_merged_model_cost_what_all_that_were_merged_did(tmp_path):
    """base → sft → dpo, and sft → other; dpo and other are merged: each is counted once."""
    params = _params(0)
    made = {"base": None, "sft": "base", "dpo": "sft", "other": "sft", "merged": "sft"}
    for number, (name, parent) in enumerate(made.items()):
        folder = tmp_path / name / "model"
        beside = [parent_path(tmp_path / other / "model", folder) for other in ("dpo", "other")]
        more = {"merged": beside} if name == "merged" else {"flops_six_n_d": 10.0**number}
        parent = parent and parent_path(tmp_path / parent / "model", folder)
        model_folder.write(folder, A, params, model_folder.card(A, stage=name, parent=parent, **more), None, {})
    found = model_folder.find(tmp_path / "merged")
    assert sorted(m.card["stage"] for m in made_from(found)) == sorted(made)
    assert training_cost(found)["training_flops"] == training_cost(found)["training_flops_own"] == 1111.0
    shutil.rmtree(tmp_path / "other")
    assert training_cost(found)["training_flops"] == 111.0
