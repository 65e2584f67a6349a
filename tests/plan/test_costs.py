"""What is counted from a compiled program, against plain loops and against programs whose costs are known."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kanana_jax.plan import costs, hlo, topology

L, B, D, F = 20, 64, 32, 48


@pytest.fixture(scope="module")
def mesh():
    devices = np.array(jax.devices()).reshape(2, 4)
    return Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


@pytest.fixture(scope="module")
def gathered(mesh):
    """A loop of `L` layers whose weights are cut over fsdp and gathered inside it, compiled for 2 × 4 CPU devices."""
    whole = NamedSharding(mesh, PartitionSpec())

    def run(x, up, down):
        def layer(x, weights):
            a, b = (jax.lax.with_sharding_constraint(w, whole) for w in weights)
            return jnp.maximum(x @ a, 0.0) @ b, None

        return jax.lax.scan(layer, x, (up, down))[0]

    def array(shape, *axes):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    arguments = array((B, D), ("data", "fsdp")), array((L, D, F), None, "fsdp"), array((L, F, D), None, "fsdp")
    with jax.set_mesh(mesh):
        text = jax.jit(run).lower(*arguments).compile().as_text()
    return costs.count(hlo.parse(text))


def test_a_loop_counts_each_time(gathered):
    assert gathered.flops == 2 * (B // 8) * D * F * 2 * L


@pytest.mark.parametrize("begin, end, step", [(0, 16, 1), (0, 16, 2), (1, 8, 3), (3, 4, 5)])
def test_a_loop_counts_in_its_own_steps(begin, end, step):
    """As the compiler's rings of permutes do; without what the compiler itself knows of the number of rounds."""

    def run(x, w):
        def one(state):
            return state[0] + step, jnp.tanh(state[1] @ w)

        return jax.lax.while_loop(lambda state: state[0] < end, one, (jnp.int32(begin), x))

    shapes = (jax.ShapeDtypeStruct((B, D), jnp.float32), jax.ShapeDtypeStruct((D, D), jnp.float32))
    text = jax.jit(run).lower(*shapes).compile().as_text()
    text = re.sub(r'"?known_trip_count"?:\{"n":"\d+"\},?', "", text)
    assert "known_trip_count" not in text
    assert costs.count(hlo.parse(text)).flops == 2 * B * D * D * len(range(begin, end, step))


def test_gathers_of_a_loop_have_sizes_times_and_axes(gathered, mesh):
    gathers = [c for c in gathered.collectives if c.kind == "all-gather"]
    assert sum(c.bytes * c.times for c in gathers) == 2 * L * D * F * 4
    assert {c.times for c in gathers} == {L} and {c.dtype for c in gathers} == {"f32"}
    for collective in gathers:
        members = topology.group(collective.groups, 8)
        assert sorted(members) == [0, 1, 2, 3]  # the first row of the mesh: fsdp
    assert not [c for c in gathered.collectives if c.kind not in ("all-gather", "all-reduce")]


def test_bytes_are_at_least_what_must_move(gathered):
    """Every layer reads its own slice of the stacked weights and not all of them."""
    slices = 2 * L * D * F * 4
    assert slices < gathered.hbm_bytes < 8 * slices
    assert gathered.hbm_bytes < 2 * L * (L * D * F * 4)


def test_nested_loops_multiply():
    def run(x, w):
        def inner(x, _):
            return x @ w, None

        def outer(x, _):
            return jax.lax.scan(inner, x, None, length=3)[0] + 1.0, None

        return jax.lax.scan(outer, x, None, length=7)[0]

    x, w = jnp.ones((8, 16)), jnp.ones((16, 16))
    counted = costs.count(hlo.parse(jax.jit(run).lower(x, w).compile().as_text()))
    assert counted.flops == 7 * 3 * 2 * 8 * 16 * 16


HEADS = [
    # How TPU writes dot_general, from programs seen: (left, right, result, attributes, FLOPs).
    ((8192, 512), (512, 1024), (8192, 1024), "dim_labels=bf_io->bf", 2 * 8192 * 512 * 1024),
    (
        *((64, 128, 1), (4, 16, 128), (64, 4, 16)),
        "window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=bf0_0oi->b0f",
        2 * 64 * 128 * 4 * 16,
    ),
    ((64, 4, 16), (4, 16, 32), (64, 32, 1), "window={size=4}, dim_labels=b0f_0io->bf0", 2 * 64 * 4 * 16 * 32),
    (
        (4, 64, 16),
        (4, 16, 32),
        (4, 64, 32),
        "window={size=4 stride=3 pad=0_0 lhs_dilate=4}, dim_labels=0bf_0io->0bf",
        None,
    ),
]


@pytest.mark.parametrize("left, right, out, attributes, flops", HEADS)
def test_convolutions_by_brute_force(left, right, out, attributes, flops):
    shape = hlo.Shape("bf16", out)
    instruction = hlo.Instruction("c", "convolution", (shape,), (), {}, ", " + attributes, "")
    assert costs.convolution_flops(left, right, instruction) == _brute_force(left, right, out, attributes)
    if flops is not None:
        assert costs.convolution_flops(left, right, instruction) == flops


def _brute_force(left, right, out, attributes):
    """Counts the multiply-adds of a convolution with one spatial dimension one by one."""
    inputs, kernel, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes).groups()
    get = {k: int(v) for k, v in re.findall(r"(stride|lhs_dilate)=(\d+)", attributes)}
    pad = int((re.search(r"pad=(\d+)_", attributes) or [0, 0])[1])
    plain = 2 * out[outputs.index("b")] * out[outputs.index("f")] * right[kernel.index("i")]
    if "0" not in inputs:
        return plain
    size, taps, places = left[inputs.index("0")], right[kernel.index("0")], out[outputs.index("0")]
    dilated = [i * get.get("lhs_dilate", 1) for i in range(size)]
    return plain * sum(
        o * get.get("stride", 1) - pad + k in dilated for o, k in itertools.product(range(places), range(taps))
    )


@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_kernel_visits_the_blocks_below_the_diagonal(batch):
    q, k = hlo.Shape("bf16", (*batch, 4, 1024, 128)), hlo.Shape("bf16", (*batch, 2, 1024, 128))
    text = r', custom_call_target="tpu_custom_call", {\"block_q\": 256, \"block_kv\": 256, \"block_kv_compute\": 128}'
    made = {
        name: hlo.Instruction(name, "parameter", (shape,), (), {}, "", str(i))
        for i, (name, shape) in enumerate((("q", q), ("k", k), ("v", k)))
    }
    kernel = hlo.Instruction("splash_mha_fwd.1", "custom-call", (q,), ("q", "k", "v"), {}, text, "")
    computation = hlo.Computation("main", {**made, kernel.name: kernel}, kernel.name)
    counted = costs.count(hlo.Module({"main": computation}, "main"))
    visited = sum(256 * 256 for row in range(4) for column in range(4) if column <= row)
    assert counted.flops == counted.kernel_flops == 2 * 2 * (3 if batch else 1) * 4 * 128 * visited


@pytest.mark.parametrize(
    "text, members",
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}", [0, 1, 4, 5]),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [0, 2]),
        ("source_target_pairs={{0,4},{4,0}}", [0, 4]),
        ("", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_groups(text, members):
    assert topology.group(text, 8).tolist() == members


class _Device:
    def __init__(self, coords, slice_index=0):
        self.coords, self.slice_index = coords, slice_index


def _torus(grid, slices=1, shape=None):
    places = itertools.product(range(slices), *(range(n) for n in grid))
    devices = np.array([_Device(p[1:] + (0,) * (3 - len(grid)), p[0]) for p in places], dtype=object)
    return functools.partial(_FakeMesh, devices.reshape(shape or (slices, -1)))


class _FakeMesh:
    axis_names = ("data", "fsdp")

    def __init__(self, devices):
        self.devices, self.size = devices, devices.size


def _collective(kind, size, groups=""):
    return costs.Collective(kind, size, "bf16", groups, 1, "")


def test_a_gather_on_a_torus_uses_all_links_and_on_a_line_one():
    """459 TFLOP/s chips aside: 64 v5p chips have three joined dimensions, six links of 100 GB/s; 4 v6e chips two lines."""
    cube = topology.traffic(_collective("all-gather", 6.4e9), _torus((4, 4, 4))(), topology.named("v5p-128"))
    assert cube.axes == "fsdp" and cube.size == 64
    assert cube.seconds == pytest.approx(6.4e9 * 63 / 64 / 600e9)
    square = topology.traffic(_collective("all-gather", 6.4e9), _torus((2, 2))(), topology.named("v6e-4"))
    assert square.seconds == pytest.approx(6.4e9 * 3 / 4 / 200e9)
    twice = topology.traffic(_collective("all-reduce", 6.4e9), _torus((4, 4, 4))(), topology.named("v5p-128"))
    assert twice.seconds == pytest.approx(2 * cube.seconds)


def test_slices_pay_for_the_data_centre_network():
    one = topology.traffic(_collective("all-reduce", 1e9), _torus((16, 16))(), topology.named("v6e-256"))
    two = topology.traffic(_collective("all-reduce", 1e9), _torus((16, 16), 2)(), topology.named("v6e-256", 2))
    assert one.dcn_bytes == 0 and two.dcn_bytes == pytest.approx(2 * 1e9 / 256 / 2)
    assert two.seconds - one.seconds == pytest.approx(two.dcn_bytes / 12.5e9)
    across = _collective("all-reduce", 1e9, "replica_groups={{0,256}}")
    alone = topology.traffic(across, _torus((16, 16), 2)(), topology.named("v6e-256", 2))
    assert alone.axes == "data" and alone.ici_bytes == 0 and alone.dcn_bytes == pytest.approx(1e9)


# As TPU's compiler wrote it for two slices of v5p, in a loop of three turns.
BETWEEN = """HloModule m

%body (p: (s32[], bf16[128,8,128])) -> (s32[], bf16[128,8,128]) {
  %p = (s32[], bf16[128,8,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[128,8,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %after-all.1 = token[] after-all()
  %send.1 = (bf16[128,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%x, %after-all.1), channel_id=12, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.9_0",_xla_megascale_reduce_operation="SUM",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send-done.1 = token[] send-done(%send.1), channel_id=12, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  ROOT %t = (s32[], bf16[128,8,128]{2,1,0:T(8,128)(2,1)}) tuple(%i, %x)
}

%condition (q: (s32[], bf16[128,8,128])) -> pred[] {
  %q = (s32[], bf16[128,8,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (a: (s32[], bf16[128,8,128])) -> (s32[], bf16[128,8,128]) {
  %a = (s32[], bf16[128,8,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %w = (s32[], bf16[128,8,128]{2,1,0:T(8,128)(2,1)}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_what_the_hosts_carry_between_slices_is_counted():
    (found,) = costs.count(hlo.parse(BETWEEN)).collectives
    assert (found.kind, found.bytes, found.dtype, found.times) == ("all-reduce", 128 * 8 * 128 * 2, "bf16", 3)
    moved = topology.traffic(found, _torus((4, 4, 4), 2)(), topology.named("v5p-128", 2))
    assert (moved.axes, moved.size, moved.ici_bytes) == ("data", 2, 0.0)
    assert moved.dcn_bytes == found.bytes and moved.seconds == pytest.approx(found.bytes / 6.25e9)
    with pytest.raises(ValueError, match="unknown kind"):
        costs.count(hlo.parse(BETWEEN.replace("ALL_REDUCE", "MYSTERY")))


@pytest.mark.parametrize("name, chips", [("v5p-128", 64), ("v4-8", 4), ("v5e-16", 16), ("v6e-256", 256), ("h100-8", 8)])
def test_names_are_googles(name, chips):
    assert topology.named(name).chips == chips


@pytest.mark.parametrize("name", ["v5p", "v5p-100", "v7x-8", "tpu", "v6e-512", "h100-9"])
def test_wrong_names_are_told(name):
    from kanana_jax.errors import ConfigError

    with pytest.raises(ConfigError, match=name.split("-")[0]):
        topology.named(name)
