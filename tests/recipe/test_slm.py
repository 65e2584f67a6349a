"""The steps of Kanana-2's small models: a student that is half as wide and gets windows before it is distilled."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.transformer import bind
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import run as recipe
from kanana_jax.recipe.config import override


def test_the_chain_runs_to_a_student_with_windows(tmp_path):
    config = config_lib.read_config_file(f"{ROOT}/configs/kanana/slm.py:test")
    # Stage 2 is one like the first; of both evaluations and samples other tests tell.
    changes = ("stages=('stage1','pruned','student')", "pruned.start=stage1", "student.distill.teacher=stage1",
               "stage1.train.eval_every=0", "student.train.eval_every=0", "stage1.train.tokens=2048",
               "student.train.tokens=1024", "samples.max_new_tokens=0")  # fmt: skip
    override(config, changes)
    for source in [source for source in config.sources if not source.endswith("_news")]:
        del config.sources[source]
    for name in config.stages:
        config[name].mixture = {"ko_news": 0.5, "en_news": 0.5}
    recipe.run(config, tmp_path, devices=jax.devices()[:1])
    teacher, pruned, student = (model_folder.find(tmp_path / name) for name in ("stage1", "pruned", "student"))
    assert pruned.architecture == student.architecture
    a, b = teacher.architecture, student.architecture
    assert [(kind.window) for kind in a.kinds + b.kinds] == [0, 0, 8, 0]
    assert (b.embed_dim, b.num_heads, b.head_dim) == (a.embed_dim // 2, a.num_heads, a.head_dim)
    assert b.tied_embeddings and not a.tied_embeddings
    assert (tmp_path / "report.html").is_file()
    # Of the student's layers, the one with a window does not see its ninth token back; what is left goes through the
    # other: with that one's attention silenced, nothing of the first token reaches the tenth.
    params = model_folder.load_params(student, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    params["blocks"]["attention"]["o"] = params["blocks"]["attention"]["o"].at[1].set(0.0)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, b.vocab_size, (1, 12)))
    states = jax.jit(lambda tokens: bind(b, Runtime(), params)(tokens))
    moved = np.abs(np.asarray(states(tokens) - states(tokens.at[0, 0].add(1))))[0].max(axis=-1)
    assert np.all(moved[:8] > 0) and not moved[8:].any()
