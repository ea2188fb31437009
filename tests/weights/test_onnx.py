"""ONNX files made by hand, without onnx: what is read, what is refused, and norms named by the layer that follows."""

import numpy as np
import onnxwrite
import pytest
from numpy.testing import assert_array_equal
from onnxwrite import field, model, node, normed, tensor, varint

from diffinv.weights.convert import onnx

NODE = node("Relu", ["a"], ["b"])
FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def load(tmp_path):
    def written(content, **options):
        path = tmp_path / "x.onnx"
        path.write_bytes(content)
        return onnx.read_graph(path, **options)

    return written


@pytest.mark.parametrize("kind", list(onnxwrite.KINDS))
def test_every_type(kind, load):
    dtype = onnxwrite.BFLOAT16 if kind == "bfloat16" else kind
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    found = load(model([tensor("a", array)], [NODE])).arrays
    assert list(found) == ["a"]
    assert_array_equal(found["a"], array, strict=True)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content, dtype", [(4, "float32"), (10, "float64"), (7, "int64"), (9, "float32")])
def test_every_form(packed, content, dtype, load):
    array = np.array([[3, 0, -1], [300, 2**20, -(2**20)]]).astype(dtype)
    scalar = np.array(7).astype(dtype)
    found = load(model([tensor("a", array, content, packed), tensor("b", scalar, content)], [NODE])).arrays
    assert_array_equal(found["a"], array, strict=True)
    assert_array_equal(found["b"], scalar, strict=True)


def test_the_graph_and_the_notes(load):
    empty = np.zeros((0, 4), np.float32)
    graph = load(model([tensor("a", empty)], [NODE, node("Add", ["b", "c"], ["d", "e"])], {"key": "value", "x": ""}))
    told = {"axis": -1}
    assert graph.nodes == (
        onnx.Node("Relu", ("a",), ("b",), "node_b", told),
        onnx.Node("Add", ("b", "c"), ("d", "e"), "node_d", told),
    )
    assert graph.opset == 18
    assert graph.notes == {"key": "value", "x": ""} and graph.arrays["a"].shape == (0, 4)


def test_arrays_do_not_keep_the_file(load):
    found = load(model([tensor("a", FLOATS)], [NODE])).arrays["a"]
    found[0, 0] = 5.0  # it is its own
    assert found.base is None or found.base.size == found.size


def refusal(load, content, **options):
    with pytest.raises(ValueError) as error:
        load(content, **options)
    assert "\n" not in str(error.value) and "x.onnx" in str(error.value)
    return str(error.value)


WHOLE = model([tensor("a", FLOATS), tensor("n", np.array([5, -1]), 7)], [NODE, NODE], {"key": "value"})


def test_cut_anywhere_it_is_refused_or_the_same_but_for_the_end(load):
    """Each byte is a place to cut: the graph comes whole or not at all."""
    complete = load(WHOLE)
    end = WHOLE.index(b"value" + field(8, field(2, 18))) + 5  # of the graph
    for cut in range(len(WHOLE)):
        if cut < end:
            assert "truncated or no ONNX file" in refusal(load, WHOLE[:cut])
            continue
        try:
            found = load(WHOLE[:cut])
        except ValueError as error:
            assert "truncated or no ONNX file" in str(error)
        else:
            assert_array_equal(found.arrays["a"], complete.arrays["a"])
            assert found.nodes == complete.nodes


def test_any_damage_is_one_line(load):
    """Each byte in turn becomes another: it loads, or is refused in one line."""
    refused = 0
    for place in range(len(WHOLE)):
        for byte in (0, 255, WHOLE[place] ^ 8):
            try:
                load(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
            except ValueError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 400
    assert refused > len(WHOLE)


def sized(*dims, content=b"", kind=1, more=b""):
    return b"".join(field(1, n) for n in dims) + field(2, kind) + field(8, "a") + field(9, content) + more


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "it holds no graph"),
        (b"\x80" * 40, "a number does not end"),
        (b"PK\x03\x04" + bytes(60), "truncated or no ONNX file"),
        (field(7, b""), "it holds no graph"),
        (field(7, 5), "the graph is a number"),
        (varint(7 << 3 | 2) + varint(2**62) + b"x", "field 7 of type 2 does not lie inside"),
        (varint(7 << 3 | 3), "field 7 of type 3"),
        (varint(7 << 3 | 1) + bytes(4), "field 7 of type 1"),
        (model([sized(2, 3, content=bytes(20))], [NODE]), "tensor 'a' of shape (2, 3) has 5 numbers"),
        (model([sized(2, 3, content=bytes(23))], [NODE]), "tensor 'a' has 23 bytes"),
        (model([sized(2**40, 2**40, content=bytes(4))], [NODE]), "has 1 numbers"),
        (model([sized(-1, content=bytes(4))], [NODE]), "tensor 'a' has the shape [-1]"),
        (model([sized(*[1] * 40, content=bytes(4))], [NODE]), "tensor 'a' has the shape"),
        (model([sized(1, content=bytes(4), kind=8)], [NODE]), "of type 8"),
        (model([sized(1, content=bytes(4), more=field(14, 1))], [NODE]), "in another file"),
        (model([sized(1, content=bytes(4), more=field(9, bytes(4)))], [NODE]), "in pieces"),
        (model([sized(1, content=bytes(4), more=field(4, bytes(4)))], [NODE]), "as another type"),
        (model([sized(1, more=field(5, bytes(4)))], [NODE]), "in a wasteful form"),
        (model([tensor("a", FLOATS), tensor("a", FLOATS)], [NODE]), "tensor 'a' is there twice"),
        (model([tensor("a", np.array([1.0]), 4)], [NODE]), "as another type"),
        (model([field(8, b"\xff")], [NODE]), "truncated or no ONNX file"),
    ],
)
def test_what_is_refused(content, said, load):
    assert said in refusal(load, content)


def test_sizes_are_bounded(load, monkeypatch):
    assert "declares" in refusal(load, WHOLE, limit=40)
    monkeypatch.setattr(onnx.reading, "PARTS", 3)
    assert "more than 3 tensors and nodes" in refusal(load, WHOLE)
    monkeypatch.setattr(onnx.wire, "FIELDS", 9)
    assert "more than 9 fields" in refusal(load, WHOLE)


def graph(load, *layers):
    """Of norms, each before a layer of its own."""
    whole = lambda i: np.full(4, i, np.float32)
    parts = [normed(layer, whole(i), whole(-i), between, i) for i, (layer, between) in layers]
    return load(model([t for tensors, _ in parts for t in tensors], [n for _, nodes in parts for n in nodes]))


def test_norms_are_named_by_what_follows(load):
    found = onnx.norms(graph(load, *enumerate([("a.conv", ()), ("b.conv", ("Mul", "Add")), ("c", ("Resize",) * 3)])))
    assert list(found) == ["a.conv", "b.conv", "c"]
    for i, (scale, shift) in enumerate(found.values()):
        assert_array_equal(scale, np.full(4, i, np.float32), strict=True)
        assert_array_equal(shift, np.full(4, -i, np.float32), strict=True)


def test_norms_without_a_name_are_refused(load):
    far = ("Mul",) * 40
    with pytest.raises(ValueError, match="no named layer follows the norm"):
        onnx.norms(graph(load, (1, ("a", far))))
    with pytest.raises(ValueError, match="no named layer follows the norm"):
        onnx.norms(graph(load, (1, ("a", ("Softmax",)))))
    with pytest.raises(ValueError, match="two norms come before 'a'"):
        onnx.norms(graph(load, (1, ("a", ())), (2, ("a", ()))))
    with pytest.raises(ValueError, match="goes to no Mul with a constant"):
        onnx.norms(load(model([], [node("InstanceNormalization", ["x"], ["y"]), node("Reshape", ["y"], ["z"])])))
