"""A search over meshes passes over those that do not divide the student or the teacher."""

import pytest
from conftest import ROOT

pytest.importorskip("libtpu")

from kanana_jax import config as config_lib  # noqa: E402
from kanana_jax.models import counts, presets  # noqa: E402
from kanana_jax.plan import plan as plan_lib  # noqa: E402
from kanana_jax.plan.request import prepared, request  # noqa: E402
from kanana_jax.plan.search import candidates, search  # noqa: E402
from kanana_jax.recipe.config import parse  # noqa: E402


@pytest.fixture
def tried(monkeypatch):
    """The meshes that a search would compile, in turn; nothing is compiled."""
    meshes = []

    def only_prepared(candidate, advise):
        meshes.append(dict(prepared(candidate).mesh.shape))  # refuses a mesh that does not divide
        times = {f"step_time_{kind}_s": float(len(meshes)) for kind in ("bound", "no_overlap")}
        rest = dict.fromkeys(("mfu_bound", "mfu_no_overlap", "bound_by"), 0.5)
        return {"fits": True, "hbm_bytes_per_device": {"peak": 1}, **times, **rest}

    monkeypatch.setattr(plan_lib, "plan", only_prepared)
    return meshes


@pytest.mark.parametrize("stage, student", [("nano_2_1b", presets.nano_2_1b), ("nano_385m", presets.nano_385m)])
def test_meshes_that_divide_the_teacher_alone_are_passed_over(stage, student, tried):
    """512 chips divide the teacher's 4,096 channels, but not the student's."""
    config = config_lib.read_config_file(f"{ROOT}/configs/kanana/chain.py")
    wanted = request(*parse(config), stage, "v5p-1024")
    found = search(wanted, tries=3)
    assert len(found["tried"]) == len(tried) == 3
    assert all(student().embed_dim % mesh["fsdp"] == 0 for mesh in tried)
    offered = {change["mesh"]["fsdp"] for _, change in candidates(wanted)}
    teacher = presets.essence_8b().embed_dim
    assert any(teacher % fsdp == 0 and student().embed_dim % fsdp for fsdp in offered)  # else nothing is asked here
    names = set(counts.sizes(student(), "teacher"))
    assert not names & set(counts.sizes(student()))  # the two never hide each other


def test_two_slices_are_searched_too(tried):
    config = config_lib.read_config_file(f"{ROOT}/configs/kanana/essence_8b.py")
    search(request(*parse(config), "stage1", "v5p-64", 2), tries=2)
    assert len(tried) == 2 and all(mesh["data"] % 2 == 0 for mesh in tried)
