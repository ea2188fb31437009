"""Files of both formats made by hand, without torch; files that are hostile, foreign or cut short."""

import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from diffinv.weights.convert import torchfile

BASE = np.arange(24, dtype=np.float32)


class Stored:
    """A storage: a flat array under a key."""

    def __init__(self, kind, array, key, view=None):
        self.kind, self.array, self.key, self.view = kind, array, key, view


class Rebuilt:
    """Pickled as a call of a torch function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def torch(monkeypatch):
    """A stand-in for torch's names, which the pickler must find."""
    top, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for module, name in [(utils, "_rebuild_tensor_v2"), (utils, "_rebuild_parameter"), (top, "Size"), (top, "load")]:
        function = types.FunctionType((lambda *args: None).__code__, {}, name)
        function.__module__, function.__qualname__ = module.__name__, name
        setattr(module, name, function)
    for name in [*torchfile.DTYPES, "QInt8Storage"]:
        setattr(top, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", top)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    top._utils = utils
    return top


def tensor(torch, stored, shape, strides, offset=0):
    return Rebuilt(torch._utils._rebuild_tensor_v2, stored, offset, shape, strides, False, OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, file, torch, legacy):
        super().__init__(file, protocol=2)
        self.torch, self.legacy, self.storages = torch, legacy, {}

    def persistent_id(self, obj):
        if not isinstance(obj, Stored):
            return None
        self.storages[obj.key] = obj.array
        view = (obj.view,) if self.legacy else ()
        return ("storage", getattr(self.torch, obj.kind), obj.key, "cpu", obj.array.size, *view)


def write_zip(path, obj, torch, order=b"little"):
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("anything/data.pkl", "w") as file:
            pickler = Pickler(file, torch, legacy=False)
            pickler.dump(obj)
        archive.writestr("anything/byteorder", order)
        for key, array in pickler.storages.items():
            archive.writestr(f"anything/data/{key}", array.tobytes())
    return path


def write_legacy(path, obj, torch):
    with open(path, "wb") as file:
        for header in (torchfile.MAGIC, torchfile.PROTOCOL, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        pickler = Pickler(file, torch, legacy=True)
        pickler.dump(obj)
        pickle.dump(sorted(pickler.storages), file, protocol=2)
        for _, array in sorted(pickler.storages.items()):
            file.write(np.int64(array.size).tobytes() + array.tobytes())
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


def whole(torch, kind, array, key):
    return tensor(torch, Stored(kind, array, key), (array.size,), (1,))


@WRITERS
def test_lists_of_tensors_stay_in_their_order(write, torch, tmp_path):
    """As `torch_ema` keeps an average."""
    stored = Stored("FloatStorage", BASE, "0")
    parts = [tensor(torch, stored, (2,), (1,), offset=i) for i in (3, 0)]
    loaded = torchfile.load(write(tmp_path / "x.pt", {"ema": {"decay": 0.9, "shadow_params": parts}}, torch))
    np.testing.assert_array_equal(loaded["ema"]["shadow_params"], [BASE[3:5], BASE[:2]])


@WRITERS
def test_views_of_one_storage(write, torch, tmp_path):
    stored, grid = Stored("FloatStorage", BASE, "0"), BASE.reshape(4, 6)
    views = {
        "whole": (tensor(torch, stored, (4, 6), (6, 1)), grid),
        "transposed": (tensor(torch, stored, (6, 4), (1, 6)), grid.T),
        "strided": (tensor(torch, stored, (2, 3), (6, 2), offset=6), grid[1:3, ::2]),
        "expanded": (tensor(torch, stored, (3, 4), (0, 1), offset=2), np.broadcast_to(BASE[2:6], (3, 4))),
        "scalar": (tensor(torch, stored, (), (), offset=5), BASE[5]),
        "empty": (tensor(torch, stored, (0, 3), (3, 1)), np.zeros((0, 3), np.float32)),
        "one": (tensor(torch, stored, (1, 2), (1000, 1)), BASE[None, :2]),
    }
    loaded = torchfile.load(write(tmp_path / "x.pt", {name: t for name, (t, _) in views.items()}, torch))
    assert list(loaded) == list(views)
    for name, (_, expected) in views.items():
        np.testing.assert_array_equal(loaded[name], expected, strict=True, err_msg=name)


@WRITERS
def test_every_dtype(write, torch, tmp_path):
    arrays = {kind: np.array([0, 1, 2]).astype(dtype) for kind, dtype in torchfile.DTYPES.items()}
    tensors = {kind: whole(torch, kind, array, kind) for kind, array in arrays.items()}
    loaded = torchfile.load(write(tmp_path / "x.pt", tensors, torch))
    for kind, array in arrays.items():
        np.testing.assert_array_equal(loaded[kind], array, strict=True)
    assert loaded["BFloat16Storage"].dtype == ml_dtypes.bfloat16


@WRITERS
def test_a_checkpoint_with_more_than_weights(write, torch, tmp_path):
    weight = tensor(torch, Stored("FloatStorage", BASE, "0"), (4, 6), (6, 1))
    state = OrderedDict(w=Rebuilt(torch._utils._rebuild_parameter, weight, True, OrderedDict()))
    state._metadata = {"": {"version": 1}}
    obj = {"model": state, "epoch": 7, "lr": [0.1, None], "size": Rebuilt(torch.Size, (1, 2)), 3: (weight, "a")}
    loaded = torchfile.load(write(tmp_path / "x.pt", obj, torch))
    np.testing.assert_array_equal(loaded["model"]["w"], BASE.reshape(4, 6))
    np.testing.assert_array_equal(loaded[3][0], BASE.reshape(4, 6))
    assert (loaded["epoch"], loaded["lr"], loaded["size"], loaded[3][1]) == (7, [0.1, None], (1, 2), "a")


def test_a_legacy_view_of_a_storage(torch, tmp_path):
    stored = Stored("FloatStorage", BASE, "0", view=("1", 10, 4))
    path = write_legacy(tmp_path / "x.pt", {"v": tensor(torch, stored, (3,), (1,), offset=1)}, torch)
    np.testing.assert_array_equal(torchfile.load(path)["v"], BASE[11:14])


@WRITERS
@pytest.mark.parametrize(
    "shape, strides, offset",
    [((25,), (1,), 0), ((2,), (24,), 0), ((4,), (-1,), 10), ((4,), (1,), -2), ((-4,), (1,), 0), ((2, 2), (1,), 0)],
)
def test_a_view_outside_its_storage_is_refused(write, shape, strides, offset, torch, tmp_path):
    stored = Stored("FloatStorage", BASE, "0")
    path = write(tmp_path / "x.pt", {"w": tensor(torch, stored, shape, strides, offset)}, torch)
    with pytest.raises(ValueError, match="truncated or no torch checkpoint"):
        torchfile.load(path)


def test_a_storage_declared_with_two_types_stays_inside(torch, tmp_path):
    """The same bytes as float32 and as float64: half as many elements, and no read beyond them."""
    stored = [Stored(kind, BASE, "0") for kind in ("FloatStorage", "DoubleStorage")]
    tensors = {str(i): tensor(torch, s, (24,), (1,)) for i, s in enumerate(stored)}
    with pytest.raises(ValueError, match="does not lie inside"):
        torchfile.load(write_zip(tmp_path / "x.pt", tensors, torch))


@WRITERS
@pytest.mark.parametrize("how", ["reduce", "torch.load", "builtins.eval"])
def test_a_hostile_file_is_refused_and_not_run(write, how, torch, tmp_path):
    witness = tmp_path / "witness"
    evil = {
        "reduce": Rebuilt(os.system, f"touch {witness}"),
        "torch.load": Rebuilt(torch.load, "x"),
        "builtins.eval": Rebuilt(eval, f"open({str(witness)!r}, 'w')"),
    }[how]
    names = {"reduce": f"{os.system.__module__}.system", "torch.load": "torch.load", "builtins.eval": r"\w+\.eval"}
    path = write(tmp_path / "x.pt", {"w": whole(torch, "FloatStorage", BASE, "0"), "evil": evil}, torch)
    with pytest.raises(ValueError, match=rf"asks for {names[how]}, which .*save its state_dict\(\) alone") as error:
        torchfile.load(path)
    assert not witness.exists()
    assert "\n" not in str(error.value)
    pickle.loads(pickle.dumps(Rebuilt(os.system, f"touch {witness}")))
    assert witness.exists(), "the same pickle, read plainly, does run"


def test_a_hostile_header_is_refused(tmp_path):
    path, witness = tmp_path / "x.pt", tmp_path / "witness"
    path.write_bytes(pickle.dumps(Rebuilt(os.system, f"touch {witness}")))
    with pytest.raises(ValueError, match="asks for"):
        torchfile.load(path)
    assert not witness.exists()


def test_one_file_cannot_alter_how_the_next_is_read(tmp_path):
    """A pickle may set attributes of what it is given: here one of the function that rebuilds parameters."""
    body = b"\x80\x02ctorch._utils\n_rebuild_parameter\n}X\x08\x00\x00\x00tamperedK\x01sb."
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("a/data.pkl", body)
    with pytest.raises(ValueError, match="holds a function"):
        torchfile.load(tmp_path / "x.pt")
    known = torchfile._globals()[("torch._utils", "_rebuild_parameter")]
    assert not hasattr(known, "tampered")


@WRITERS
def test_a_quantised_storage_is_refused(write, torch, tmp_path):
    path = write(tmp_path / "x.pt", {"w": whole(torch, "QInt8Storage", BASE, "0")}, torch)
    with pytest.raises(ValueError, match=r"torch\.QInt8Storage"):
        torchfile.load(path)


def test_a_big_endian_file_is_refused(torch, tmp_path):
    path = write_zip(tmp_path / "x.pt", {"w": whole(torch, "FloatStorage", BASE, "0")}, torch, order=b"big")
    with pytest.raises(ValueError, match="big-endian"):
        torchfile.load(path)


@WRITERS
def test_a_bare_tensor_is_refused(write, torch, tmp_path):
    path = write(tmp_path / "x.pt", whole(torch, "FloatStorage", BASE, "0"), torch)
    with pytest.raises(ValueError, match="holds a ndarray, not a dictionary"):
        torchfile.load(path)


@WRITERS
def test_every_truncation_is_one_clear_error(write, torch, tmp_path):
    """Cut anywhere, a file is refused, in one line that names it."""
    whole_file = write(tmp_path / "x.pt", {"w": whole(torch, "FloatStorage", BASE, "0")}, torch).read_bytes()
    cut = tmp_path / "cut.pt"
    for length in [*range(0, len(whole_file) - 1, 7), len(whole_file) - 1]:
        cut.write_bytes(whole_file[:length])
        with pytest.raises(ValueError, match="truncated or no torch checkpoint") as error:
            torchfile.load(cut)
        assert str(cut) in str(error.value) and "\n" not in str(error.value)


def test_a_lost_end_that_no_tensor_needs_is_still_a_truncation(torch, tmp_path):
    path = write_legacy(tmp_path / "x.pt", {"w": tensor(torch, Stored("FloatStorage", BASE, "0"), (3,), (1,))}, torch)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="truncated"):
        torchfile.load(path)


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04nothing", bytes(1000)])
def test_a_foreign_file_is_one_clear_error(content, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or no torch checkpoint"):
        torchfile.load(path)


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        torchfile.load(tmp_path / "absent.pt")


@pytest.mark.torch
@pytest.mark.parametrize("new", [True, False])
def test_files_saved_by_torch(new, tmp_path):
    real = pytest.importorskip("torch")
    base = real.arange(24.0).reshape(4, 6)
    model = real.nn.Sequential(real.nn.Conv2d(2, 3, 3), real.nn.BatchNorm2d(3))
    views = {"t": base.t(), "s": base[1:3, ::2], "half": base.half(), "bf": base.bfloat16(), "bool": base > 3}
    obj = {"model": model.state_dict(), "views": views, "p": real.nn.Parameter(base), "epoch": 7}
    real.save(obj, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    loaded = torchfile.load(tmp_path / "x.pt")
    for ours, theirs in [(loaded["model"], model.state_dict()), (loaded["views"], views), (loaded, {"p": base})]:
        for name, value in theirs.items():
            expected = value.detach().double().numpy()
            np.testing.assert_array_equal(np.asarray(ours[name], np.float64), expected)
    assert loaded["epoch"] == 7
    real.save(model, tmp_path / "module.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"asks for torch\.nn\.modules"):
        torchfile.load(tmp_path / "module.pt")
