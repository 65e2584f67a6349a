"""Logits of `transformers`, kept in a file for those without torch."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from kanana_jax.files import write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import family_of
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.transformer import bind
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

TESTS = pathlib.Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("make_golden", TESTS / "parity" / "make_golden.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


@pytest.mark.parametrize("name", golden.CASES)
def test_logits_of_transformers(name, tmp_path):
    architecture = golden.CASES[name]
    save_file(golden.weights(architecture), tmp_path / "model.safetensors")
    config = family_of(architecture).to_config(architecture, "float32", {"bos_token_id": 1, "eos_token_id": 2})
    write_json(tmp_path / "config.json", config)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = model_folder.load_params(model_folder.find(tmp_path), Runtime(), mesh)
    model = bind(architecture, Runtime(), params)
    want = np.load(TESTS / "golden" / "llama.npz")[name]
    np.testing.assert_allclose(model.unembed(model(golden.TOKENS)), want, atol=1e-4)
