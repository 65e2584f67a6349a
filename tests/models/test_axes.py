"""Counts, FLOPs, what a mesh must divide and decay follow from axis names, as the closed formulas have them."""

import dataclasses

import jax
import pytest

from kanana_jax.models import axes, counts, presets, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.sharding import RULES

SHAPES = {
    **{name: make() for name, (make, _) in presets.PAPER.items()},
    "tiny": presets.tiny(4096),
    "untied": presets.tiny(1024, tied=False),
    "odd": Architecture(101, 18, 21, 5, 6, 3, 10),
    "qk_norm": Architecture(101, 18, 21, 5, 6, 3, 10, qk_norm="head"),
}


@pytest.fixture(params=SHAPES)
def a(request) -> Architecture:
    return SHAPES[request.param]


def test_counts_are_the_closed_formulas(a):
    D, F, L, H, K, h, V = a.embed_dim, a.mlp_dim, a.num_layers, a.num_heads, a.num_kv_heads, a.head_dim, a.vocab_size
    matrices = D * h * (2 * H + 2 * K) + 3 * D * F
    gains = 2 * D + (2 * h if a.qk_norm == "head" else 0)
    assert counts.layer_parameters(a) == matrices + gains
    assert counts.embedding_parameters(a) == V * D * (1 if a.tied_embeddings else 2)
    assert counts.parameters(a) == L * (matrices + gains) + D + counts.embedding_parameters(a)
    assert counts.matmul_parameters(a) == L * matrices + V * D
    assert counts.forward_flops_per_token(a, 512) == 2.0 * (L * matrices + V * D) + 2.0 * L * H * h * 512
    assert counts.train_flops_per_token(a, 512) == 6.0 * (L * matrices + V * D) + 6.0 * L * H * h * 512
    assert counts.six_n_d(a, 1e3) == 6e3 * counts.parameters(a)


def test_what_a_mesh_must_divide(a):
    found = counts.sizes(a, "teacher")
    assert list(found.items()) == [
        ("teacher.num_heads", ("heads", a.num_heads)),
        ("teacher.num_kv_heads", ("kv_heads", a.num_kv_heads)),
        ("teacher.mlp_dim", ("mlp", a.mlp_dim)),
        ("teacher.vocab_size", ("vocab", a.vocab_size)),
        ("teacher.embed_dim", ("embed", a.embed_dim)),
    ]


def test_names_give_each_parameters_shape(a):
    shapes = transformer.abstract_params(a, Runtime())
    named = transformer.logical_axes(a)
    found = jax.tree.map(lambda names: axes.shape(a, names), named, is_leaf=lambda x: isinstance(x, tuple))
    assert found == jax.tree.map(lambda x: x.shape, shapes)


def test_every_name_has_a_size_and_a_place_on_the_mesh():
    assert axes.SIZES.keys() <= RULES.keys() and axes.SIZES.keys() >= axes.VECTORS
    fields = {field.name for field in dataclasses.fields(Architecture)}
    assert set(axes.SIZES.values()) <= fields


def test_gains_alone_do_not_decay(a):
    for path, names in transformer.axes_by_path(a).items():
        assert axes.is_matrix(names) == (path[-1] != "scale"), path


def test_the_tree_is_the_callers_own():
    transformer.logical_axes(SHAPES["tiny"])["blocks"].clear()
    transformer.logical_axes(SHAPES["tiny"]).clear()
    assert transformer.logical_axes(SHAPES["tiny"])["blocks"]["mlp"]["up"] == ("layers", "embed", "mlp")


def test_counting_is_cheap():
    """A search counts thousands of shapes: the module is traced once for all of them."""
    shapes = [dataclasses.replace(SHAPES["tiny"], mlp_dim=8 * i + 8) for i in range(1000)]
    counts.parameters(shapes[0])
    traced = transformer._axes_by_path.cache_info().misses
    numbers = [counts.parameters(shape) for shape in shapes]
    assert numbers == sorted(set(numbers))
    assert transformer._axes_by_path.cache_info().misses == traced
