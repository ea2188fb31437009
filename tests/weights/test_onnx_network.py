"""ONNX graphs as functions: jit, vmap, grad, free sizes, channels last inside, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxcases
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal
from onnxwrite import field, file, operation, port

import diffinv as di
from diffinv.weights.convert import onnx
from diffinv.weights.convert.onnx import running

F, SIDES = np.float64, ("n", 3, "h", "w")
rng = np.random.default_rng(0)
ints = lambda *values: np.array(values, np.int64)


def drawn(*shape):
    return rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))


TENSORS = {
    "k0": drawn(4, 3, 3, 3), "b0": drawn(4), "ones": np.ones(2), "zeros": np.zeros(2), "gamma": 1 + drawn(4, 1, 1),
    "beta": drawn(4, 1, 1), "film": drawn(8, 1), "k1": drawn(4, 4, 1), "k2": drawn(3, 8, 3, 3), "b2": drawn(3),
    "groups": ints(0, 2, -1), "flat": ints(0, 4, -1), "twice": np.array([1, 1, 2, 2], np.float32), "one": ints(-1),
    "wide": ints(2), "tall": ints(4), "two": np.array(2.0), "root": np.array(0.5), "unused": drawn(2),
}  # fmt: skip
OPS = [
    operation("Unsqueeze", ["t", "one"], ["t1"]),
    operation("Gemm", ["t1", "film"], ["ft"], transB=1),
    operation("Split", ["ft"], ["f1", "f2"], axis=1),
    *(operation("Unsqueeze", [f"f{i}", "axes"], [f"film{i}"]) for i in (1, 2)),
    operation("Conv", ["x", "k0", "b0"], ["h"], pads=[1, 1, 1, 1]),
    operation("Reshape", ["h", "groups"], ["g0"]),
    operation("InstanceNormalization", ["g0", "ones", "zeros"], ["g1"]),
    operation("Shape", ["h"], ["hs"]),
    operation("Reshape", ["g1", "hs"], ["g2"]),
    operation("Mul", ["g2", "gamma"], ["g3"]),
    operation("Add", ["g3", "beta"], ["g4"]),
    operation("Mul", ["g4", "film1"], ["g5"]),
    operation("Add", ["g5", "film2"], ["g6"]),
    operation("Sigmoid", ["g6"], ["s"]),
    operation("Mul", ["g6", "s"], ["silu"]),
    operation("AveragePool", ["silu"], ["low"], kernel_shape=[2, 2], strides=[2, 2]),
    operation("Reshape", ["low", "flat"], ["line"]),
    operation("Conv", ["line", "k1"], ["v"]),
    operation("Transpose", ["line"], ["q"], perm=[0, 2, 1]),
    operation("MatMul", ["q", "line"], ["scores"]),
    operation("Softmax", ["scores"], ["share"], axis=-1),
    operation("Transpose", ["v"], ["v1"], perm=[0, 2, 1]),
    operation("MatMul", ["share", "v1"], ["mixed"]),
    operation("Transpose", ["mixed"], ["back"], perm=[0, 2, 1]),
    operation("Shape", ["low"], ["ls"]),
    operation("Reshape", ["back", "ls"], ["seen"]),
    operation("Add", ["low", "seen"], ["sum"]),
    operation("Resize", ["sum", "", "twice"], ["high"], mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric"),
    operation("Concat", ["high", "h"], ["both"], axis=1),
    operation("Slice", ["hs", "wide", "tall"], ["space"]),
    operation("Concat", ["space", "space"], ["unread"], axis=0),
    operation("Pow", ["both", "two"], ["squares"]),
    operation("Greater", ["both", "root"], ["mask"]),
    operation("Where", ["mask", "both", "squares"], ["kept"]),
    operation("Conv", ["kept", "k2", "b2"], ["out"], pads=[1, 1, 1, 1]),
]  # fmt: skip
"""A small network as PyTorch exports one: group norm, FiLM, attention, a skip past half the size."""


def content(tensors=None, ops=OPS, dtype=F, opset=17, more=b"", inputs=None, outputs=None):
    held = {**TENSORS, "axes": ints(2, 3)} if tensors is None else tensors
    real = lambda a: a.astype(dtype) if a.dtype == F else a
    enter = [port("x", dtype, SIDES), port("t", dtype, ("n",))] if inputs is None else inputs
    leave = [port("out", dtype, SIDES)] if outputs is None else outputs
    return file({name: real(a) for name, a in held.items()}, ops, enter, leave, opset, more)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("onnx") / "net.onnx"
    place.write_bytes(content())
    return place


@pytest.fixture
def written(tmp_path):
    def written(*arguments, **named):
        place = tmp_path / "x.onnx"
        place.write_bytes(content(*arguments, **named))
        return place

    return written


def given(side=4, count=1):
    draw = np.random.default_rng(side)
    return draw.standard_normal((count, 3, side, side)), draw.uniform(size=count)


def by_hand(x, t):
    """The same network in NumPy."""
    p, wide = TENSORS, (1, 1)
    h = onnxcases.convolution(x, p["k0"], p["b0"], wide, wide, wide, wide, 1)
    norm = onnxcases.standard(h.reshape(len(x), 2, -1), 2).reshape(h.shape)
    f1, f2 = np.split(t[:, None] @ p["film"].T, 2, 1)
    film = (norm * p["gamma"] + p["beta"]) * f1[..., None, None] + f2[..., None, None]
    silu = film / (1 + np.exp(-film))
    low = silu.reshape(len(x), 4, x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))
    line = low.reshape(len(x), 4, -1)
    share = onnxcases.softmax(line.swapaxes(1, 2) @ line, -1)
    seen = (share @ (p["k1"][..., 0] @ line).swapaxes(1, 2)).swapaxes(1, 2)
    high = (low + seen.reshape(low.shape)).repeat(2, 2).repeat(2, 3)
    both = np.concatenate([high, h], 1)
    kept = np.where(both > 0.5, both, both**2)
    return onnxcases.convolution(kept, p["k2"], p["b2"], wide, wide, wide, wide, 1)


@pytest.mark.parametrize("side, count", [(4, 1), (6, 2)])
def test_a_network_is_what_numpy_computes_at_every_size(side, count, path):
    apply, params = onnx.network(path)
    x, t = given(side, count)
    assert_allclose(jax.jit(apply)(params, x, t), by_hand(x, t), rtol=1e-9, atol=1e-9)
    assert_array_equal(apply(params, t=t, x=x), apply(params, x, t))


def test_channels_first_inside_gives_the_same(path, monkeypatch):
    apply, params = onnx.network(path)
    laid = apply(params, *given())
    monkeypatch.setattr(running, "LAID", {})
    assert_allclose(laid, apply(params, *given()), rtol=1e-12, atol=1e-12)


def test_parameters_are_the_floats_that_decide_on_no_shape(path):
    params = onnx.network(path)[1]
    assert set(params) == {"k0", "b0", "ones", "zeros", "gamma", "beta", "film", "k1", "k2", "b2", "root"}
    assert_array_equal(params["k0"], TENSORS["k0"].transpose(2, 3, 1, 0))
    assert_array_equal(params["film"], TENSORS["film"])


def test_gradients_are_those_of_finite_differences(path):
    apply, params = onnx.network(path)
    x, t = given()
    direction = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape))
    value = jax.jit(lambda params, x, t: jnp.sum(direction * apply(params, x, t)))
    check_grads(value, (params, jnp.asarray(x), jnp.asarray(t)), order=1, modes=["rev"], rtol=1e-6, atol=1e-7)


def test_forward_mode_by_plain_convolutions(path):
    apply, params = onnx.network(path, plain_conv=True)
    x, t = map(jnp.asarray, given())
    change = lambda x: jax.jvp(lambda x: apply(params, x, t), (x,), (x,))[1]
    along = (apply(params, (1 + 1e-5) * x, t) - apply(params, (1 - 1e-5) * x, t)) / 2e-5
    assert_allclose(jax.jit(change)(x), along, rtol=1e-6, atol=1e-7)
    assert apply != onnx.network(path)[0]


def test_vmap_is_a_loop_and_jit_traces_once(path):
    apply, params = onnx.network(path)
    xs, ts = given(count=3)
    count = []

    @jax.jit
    def run(params, xs, ts):
        count.append(1)
        return jax.vmap(lambda x, t: apply(params, x[None], t[None])[0])(xs, ts)

    loop = jnp.concatenate([apply(params, x[None], t[None]) for x, t in zip(xs, ts)])
    assert_allclose(run(params, xs, ts), loop, rtol=1e-12, atol=1e-12)
    doubled = run({name: 2 * leaf for name, leaf in params.items()}, xs, ts)
    assert len(count) == 1 and np.max(np.abs(doubled - loop)) > 1e-3


def test_the_same_file_is_one_program(path, written):
    apply, again = onnx.network(path)[0], onnx.network(path)[0]
    other = onnx.network(written({**TENSORS, "axes": ints(2, 3), "two": np.array(3.0)}))[0]
    assert apply == again and hash(apply) == hash(again) and apply != other
    assert "0." not in repr(apply)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_it_computes_in_the_type_of_its_parameters(dtype, written):
    apply, params = onnx.network(written(dtype=np.float32))
    assert {leaf.dtype.name for leaf in params.values()} == {"float32"}
    x, t = given()
    found = apply({name: leaf.astype(dtype) for name, leaf in params.items()}, jnp.asarray(x), jnp.asarray(t))
    assert found.dtype == dtype
    tolerance = {"float64": 1e-6, "float32": 1e-5, "bfloat16": 0.1}[dtype]  # the weights are those of float32
    assert_allclose(found.astype(F), by_hand(x, t), atol=tolerance)


def test_several_outputs_and_settings_as_texts(written):
    ops = [operation("Swish", ["x"], ["a"], alpha=2.0), operation("CastLike", ["x", "a"], ["b"])]
    ops += [operation("IsNaN", ["x"], ["c"]), operation("IsInf", ["x"], ["d"])]
    ends = [port(name, kind, SIDES) for name, kind in (("a", F), ("b", F), ("c", bool), ("d", bool))]
    apply, params = onnx.network(written({}, ops, opset=24, inputs=[port("x", F, SIDES)], outputs=ends))
    x = given()[0]
    swished, same, lost, endless = apply(params, x)
    assert params == {} and not lost.any() and not endless.any()
    assert_allclose(swished, x / (1 + np.exp(-2 * x)), rtol=1e-6)
    assert_array_equal(same, x)


def test_an_exact_denoiser_in_a_file_gives_the_exact_posterior(written, key):
    """Independent normal pixels under EDM, `(v x + s^2 m) / (v + s^2)`: DDRM's samples are the posterior's."""
    mean, variance = rng.standard_normal((2, 3, 3)), rng.uniform(0.2, 2.0, (2, 3, 3))
    rule = [("Mul", "variance", "x", "a"), ("Mul", "s", "s", "s2"), ("Reshape", "s2", "column", "level")]
    rule += [("Mul", "level", "mean", "b"), ("Add", "a", "b", "c"), ("Add", "variance", "level", "d")]
    ops = [operation(op, [a, b], [out]) for op, a, b, out in [*rule, ("Div", "c", "d", "out")]]
    held = {"mean": mean, "variance": variance, "column": ints(-1, 1, 1, 1)}
    ports = [port("x", F, ("n", 2, 3, 3)), port("s", F, ("n",))]
    apply, params = onnx.network(written(held, ops, inputs=ports))
    edm, last = di.process.EDM(), lambda a: jnp.moveaxis(jnp.asarray(a), 0, -1)
    told = di.NetworkDenoiser(params, edm, di.adapters.channels_first(apply), "x0", di.adapters.noise_level)
    found = di.Prior(edm, told, (3, 3, 2))
    exact = di.Prior(edm, di.denoisers.GaussianDenoiser(edm, last(mean), last(variance)), found.shape)
    m = di.measure(key, di.operators.box_inpainting(found.shape, 0, 1, 2), last(mean), sigma=0.1)
    run = jax.jit(lambda prior, m: di.as_solver(lambda m: di.posterior.ddrm(prior, m), di.times.grid(4))(key, m).x)
    assert_allclose(run(found, m), run(exact, m), rtol=1e-9, atol=1e-9)
    assert np.max(np.abs(run(found, m) - last(mean))) > 0.1


def test_a_norm_keeps_a_deviation_that_is_small_beside_the_mean(written):
    """As in a smooth picture's first layer; a mean of squares about 0 has no digit left of it in float32."""
    ops = [operation("InstanceNormalization", ["x", "one", "none"], ["out"])]
    ports = [port("x", np.float32, ("n", 2, 8, 8))]
    held = {"one": np.ones(2), "none": np.zeros(2)}
    apply, params = onnx.network(written(held, ops, dtype=np.float32, inputs=ports))
    x = (3000 + rng.standard_normal((1, 2, 8, 8))).astype(np.float32)
    assert_allclose(apply(params, x), onnxcases.standard(x.astype(F), (2, 3)), atol=2e-4)


def full_sizes(apply, params, x):
    """Products of arrays of the picture's size with others, in what is traced."""
    jaxpr = jax.make_jaxpr(apply)(params, x).jaxpr
    return [e.primitive.name for e in jaxpr.eqns if e.outvars[0].aval.size == x.size and e.primitive.name == "mul"]


@pytest.mark.parametrize("whole", [False, True])
def test_what_follows_a_group_norm_for_each_channel_is_put_into_its_scale(whole, written):
    """As PyTorch writes it, with FiLM of a batch; and not what is of whole pictures, or is used twice."""
    side, held = (1, 4, 6, 6) if whole else (4, 1, 1), {"one": np.ones(2), "none": np.zeros(2)}
    held |= {"gamma": drawn(*side), "beta": drawn(4, 1, 1), "split": ints(0, 2, -1), "film": drawn(3, 4, 1, 1)}
    held |= {"weight": drawn(4, 4, 1, 1)}
    ops = [operation("Conv", ["x", "weight"], ["c"]), operation("Reshape", ["c", "split"], ["a"])]
    ops += [operation("InstanceNormalization", ["a", "one", "none"], ["n"]), operation("Shape", ["c"], ["sides"])]
    steps = [("Reshape", "n", "sides", "r"), ("Mul", "gamma", "r", "g"), ("Add", "g", "beta", "b")]
    steps += [("Mul", "b", "film", "f"), ("Add", "film", "f", "s"), ("Mul", "s", "b", "out")]
    ops += [operation(op, [a, b], [out]) for op, a, b, out in steps]
    apply, params = onnx.network(written(held, ops, inputs=[port("x", F, (3, 4, 6, 6))]))
    x = drawn(3, 4, 6, 6)
    convolved = np.einsum("oi,nihw->nohw", held["weight"][:, :, 0, 0], x)
    norm = onnxcases.standard(convolved.reshape(3, 2, -1), (2,)).reshape(x.shape)
    b = norm * held["gamma"] + held["beta"]
    assert_allclose(apply(params, x), (b * held["film"] + held["film"]) * b, rtol=1e-9, atol=1e-9)
    assert len(full_sizes(apply, params, x)) == (4 if whole else 3)  # r, g, f and out; b, s and out


def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path):
    whole, draw, refused = content(), np.random.default_rng(0), 0
    for i in range(150):
        bad = bytearray(whole[: draw.integers(len(whole))] if i % 3 == 0 else whole)
        if i % 3 and len(bad):
            bad[draw.integers(len(bad))] ^= 1 << draw.integers(8)
        (tmp_path / "x.onnx").write_bytes(bad)
        try:
            onnx.network(tmp_path / "x.onnx")
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and "x.onnx" in str(error)
    assert refused > 50


def refusal(place, **named):
    with pytest.raises(ValueError) as error:
        onnx.network(place, **named)
    assert "\n" not in str(error.value) and "x.onnx" in str(error.value)
    return str(error.value)


def test_what_is_not_known_is_named(written):
    act = lambda op, **settings: [operation(op, ["x"], ["out"], **settings)]
    assert "operation NonZero 'the out', which is not known here" in refusal(written({}, act("NonZero")))
    named = field(7, "com.microsoft")
    foreign = [operation("Relu", ["x"], ["out"]) + named]
    assert "operation com.microsoft.Relu 'the out'" in refusal(written({}, foreign))
    assert "takes 'y', and nothing before it" in refusal(written({}, [operation("Add", ["x", "y"], ["out"])]))
    assert "gives 'out', which no operation makes" in refusal(written({}, [operation("Relu", ["x"], ["z"])]))
    assert "names no output" in refusal(written({}, act("Relu"), outputs=[]))
    assert "no array of numbers" in refusal(written({}, act("Relu"), inputs=[field(1, "x")]))
    assert "opset 5; 7 to 28 are known" in refusal(written({}, act("Relu"), opset=5))
    assert "opset 99" in refusal(written({}, act("Relu"), opset=99))
    assert "functions of its own" in refusal(written({}, act("Relu"), more=field(25, field(1, "f"))))


def test_what_only_the_data_decide_is_refused(written):
    sizes = [operation("Cast", ["t"], ["sides"], to=7), operation("Reshape", ["x", "sides"], ["out"])]
    apply, params = onnx.network(written({}, sizes))
    with pytest.raises(ValueError, match="operation Reshape 'the out' takes its shape from the data; export it"):
        apply(params, *given())


@pytest.mark.parametrize(
    "op, settings, said",
    [
        ("Pad", {"mode": "round", "pads": [0] * 8}, "mode = 'round'; known are constant"),
        ("Resize", {"mode": "wild"}, "mode = 'wild'; known are nearest, linear, cubic"),
        ("Resize", {}, "neither scales nor sizes"),
        ("MaxPool", {"kernel_shape": [2, 2], "storage_order": 1}, "storage_order = 1"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SOME"}, "auto_pad = 'SOME'"),
        ("Cast", {"to": 8}, "casts to type 8"),
        ("LpNormalization", {"p": 3}, "p = 3"),
        ("GridSample", {}, "operation GridSample"),
    ],
)
def test_settings_that_are_not_known_are_refused(op, settings, said, written):
    opset = 10 if op == "Pad" else 17
    with pytest.raises(ValueError, match=said):
        apply, params = onnx.network(written({}, [operation(op, ["x"], ["out"], **settings)], opset=opset))
        apply(params, *given())


def test_attention_with_a_cache_or_a_window_is_refused(written):
    for inputs, settings, said in (
        (["x", "x", "x", "", "x", "x"], {}, "export the network without a cache"),
        (["x", "x", "x"], {"left_window_size": 3}, "left_window_size = 3"),
        (["t", "t", "t"], {}, "export heads as an axis of their own"),
    ):
        apply, params = onnx.network(written({}, [operation("Attention", inputs, ["out"], **settings)], opset=25))
        with pytest.raises(ValueError, match=said):
            apply(params, *given())


def test_training_is_refused(written):
    ops = [operation("Dropout", ["x", "", "on"], ["out"])]
    apply, params = onnx.network(written({"on": np.array(True)}, ops))
    with pytest.raises(ValueError, match="of training; export the network in evaluation mode"):
        apply(params, *given())


def test_what_does_not_fit_is_refused_in_one_line(path, written):
    apply, params = onnx.network(path)
    x, t = given()
    with pytest.raises(ValueError, match=r"input 'x' has shape \(4, 4, 3\), the file takes .*channels_first"):
        apply(params, x[0].transpose(1, 2, 0), t)
    with pytest.raises(ValueError, match="takes x, t, and was given 1 in order"):
        apply(params, x)
    with pytest.raises(ValueError, match="takes x, t"):
        apply(params, x, t, t=t)
    with pytest.raises(ValueError, match="'b0' of shape absent; the file's is"):
        apply({name: leaf for name, leaf in params.items() if name != "b0"}, x, t)
    index = [port("x", F, SIDES), port("t", np.int64, ("n",))]
    apply, params = onnx.network(written(TENSORS, [operation("Relu", ["x"], ["out"])], inputs=index))
    with pytest.raises(ValueError, match="'t' is float64, the file takes whole numbers; round it"):
        apply(params, x, t)
    assert_array_equal(apply(params, x, ints(3)), np.maximum(x, 0))


def outside(**told):
    """A tensor of 24 bytes that lies elsewhere."""
    places = b"".join(field(13, field(1, name) + field(2, value)) for name, value in told.items())
    return field(1, 3) + field(2, 11) + field(8, "a") + places + field(14, 1)


def kept_outside(tmp_path, **told):
    graph = field(1, operation("Add", ["x", "a"], ["out"])) + field(5, outside(**told))
    graph += field(11, port("x", F, (3,))) + field(12, port("out", F, (3,)))
    (tmp_path / "x.onnx").write_bytes(field(7, graph) + field(8, field(2, 17)))
    return tmp_path / "x.onnx"


def test_tensors_beside_the_file_are_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.data").write_bytes(bytes(8) + np.arange(3.0).tobytes())
    apply, params = onnx.network(kept_outside(tmp_path, location="in/x.data", offset="8", length="24"))
    assert_array_equal(apply(params, np.ones(3)), [1, 2, 3])


def test_tensors_elsewhere_are_refused(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(24))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(20))
    for location in ("../secret", str(tmp_path / "secret"), "link", "."):
        said = refusal(kept_outside(folder, location=location))
        assert "not in its own folder" in said or "folder" in said
    assert "'lost', which is not beside it; copy both" in refusal(kept_outside(folder, location="lost"))
    assert "which short does not hold" in refusal(kept_outside(folder, location="short"))
    assert "of 24 bytes" in refusal(kept_outside(folder, location="short", length="16"))
    assert "lies at '-8'" in refusal(kept_outside(folder, location="short", offset="-8"))
    place = kept_outside(folder, location="short")
    assert "declares more tensors than short holds" in refusal(place, limit=place.stat().st_size + 8)
