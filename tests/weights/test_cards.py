"""Cards: every field that is wrong is one line with the card's path, before anything compiles or takes memory."""

import copy
import hashlib
import json
import os
import time
from pathlib import Path

import jax.numpy as jnp
import nets
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from diffinv import process, weights
from diffinv.weights import cards
from diffinv.weights.convert import safetensors as tensors

CARD = {
    "name": "tiny",
    "architecture": {"name": "unet", "dtype": "float32", **json.loads(json.dumps(nets.TINY))},
    "parametrisation": {"parametrisation": "edm", "sigma_data": 0.4},
    "process": {"name": "EDM", "sigma_max": 40.0},
    "shape": [8, 8, 3],
    "layout": "HWC, RGB",
    "range": [-1, 1],
    "data": "nothing",
}


@pytest.fixture(scope="module")
def params():
    return nets.tiny()[1]


@pytest.fixture(scope="module")
def home(params, tmp_path_factory):
    """A sound checkpoint, and its card as text."""
    path = tmp_path_factory.mktemp("card") / "tiny"
    weights.save(str(path), params, CARD)
    return path, json.loads(Path(f"{path}.json").read_text())


def refusal(path):
    """The one line of `load_prior`, with the card's or the weights' path."""
    with pytest.raises((ValueError, OSError)) as error:
        weights.load_prior(str(path))
    line = str(error.value)
    assert "\n" not in line and str(path) in line and len(line) < 700, line
    return line


def put(home, card):
    content = card if isinstance(card, bytes) else json.dumps(card).encode()
    Path(f"{home[0]}.json").write_bytes(content)
    return refusal(home[0])


DEEP = b"[" * 100_000 + b"]" * 100_000
WRONG = [
    ({"architecture": None}, "card.architecture is None; give an object"),
    ({"architecture": 5}, "card.architecture is 5"),
    ({"architecture": "unet"}, "card.architecture is 'unet'"),
    ({"architecture.name": "vit"}, "'vit'; known are unet"),
    ({"architecture.name": None}, "card.architecture.name is None; known are"),
    ({"architecture.evil": 1}, "card.architecture has no field 'evil'"),
    ({"architecture.channels": 0}, "card.architecture.channels is 0; give a whole number"),
    ({"architecture.channels": 2**31}, "card.architecture.channels is 2147483648"),
    ({"architecture.channels": 8.5}, "card.architecture.channels is 8.5"),
    ({"architecture.channels": "8"}, "card.architecture.channels is '8'"),
    ({"architecture.channels": 16}, "of one export"),
    ({"architecture.dtype": "evil"}, "card.architecture.dtype is 'evil'; give one of float32"),
    ({"architecture.dtype": "object"}, "card.architecture.dtype is 'object'"),
    ({"architecture.patch": 0}, "card.architecture.patch is 0"),
    ({"architecture.patch": -2}, "card.architecture.patch is -2"),
    ({"architecture.blocks": 10**6}, "card.architecture.blocks is 1000000"),
    ({"architecture.multipliers": [1] * 10_000}, "card.architecture.multipliers is [1, 1"),
    ({"architecture.multipliers": []}, "card.architecture.multipliers is []"),
    ({"architecture.multipliers": [0.01, 1]}, "a level has no channel"),
    ({"architecture.multipliers": [1, 1, 1, 1, 1]}, "multiples of 16"),
    ({"architecture.groups": 3, "architecture.smallest_group": 1}, "its groups do not divide"),
    ({"architecture.heads": 3}, "do not divide 16 channels"),
    ({"architecture.out_channels": 4}, "card.architecture.out_channels is 4"),
    ({"consistency": []}, "card.consistency is []"),
    ({"given": [1]}, "card.given is [1]"),
    ({"given": {"label": "x"}}, "card.given has 'label'"),
    ({"given": {"label": [[1], [1, 2]]}}, "card.given has 'label'"),
    ({"given": {"label": 1}}, "card.given.label is 1; the network knows none at all"),
    ({"given": {"evil": 1}}, "card.given has 'evil'"),
    ({"architecture.scalar_label": 1}, "card.architecture.scalar_label is 1; give True or False"),
    (
        {"architecture.scalar_label": True, "given": {"label": 1.5}},
        "card.given.label is 1.5; the network takes a number",
    ),
    ({"architecture.scalar_label": True, "architecture.classes": 3}, "card.architecture.classes is 3 and scalar_label"),
    ({"architecture.low_channels": -1}, "card.architecture.low_channels is -1"),
    ({"architecture.low_channels": 3}, "card.architecture.low_channels is 3; the card's shape and coarse want 0"),
    ({"coarse": {"side": 4, "level": 1.0}}, "card.architecture.low_channels is 0; the card's shape and coarse want 3"),
    (
        {"architecture.low_channels": 3, "coarse": {"side": 3, "level": 1.0}},
        "card.coarse.side is 3; it must divide the sides of shape [8, 8, 3]",
    ),
    ({"coarse": 4}, "card.coarse is 4"),
    ({"coarse": {"side": 4}}, "card.coarse"),
    ({"coarse": {"side": 4, "level": -1}}, "card.coarse.level is -1"),
    ({"architecture.low_channels": 3, "coarse": {"side": 4, "level": 1.0}}, "of one export"),
    ({"name": ["x"]}, "card.name is ['x']; give a name without a path"),
    ({"name": "/x/evil"}, "card.name is '/x/evil'"),
    ({"name": "../../x"}, "card.name is '../../x'"),
    ({"name": "x\ny"}, "card.name is 'x\\ny'"),
    ({"parametrisation": None}, "card.parametrisation is None"),
    ({"parametrisation": ...}, "card.parametrisation is missing"),
    ({"parametrisation": {}}, "card.parametrisation.parametrisation is missing"),
    ({"parametrisation.parametrisation": "guess"}, "card.parametrisation.parametrisation is 'guess'"),
    ({"parametrisation.sigma_data": "x"}, "card.parametrisation.sigma_data is 'x'"),
    ({"parametrisation.sigma_data": 0}, "card.parametrisation.sigma_data is 0"),
    ({"parametrisation.sigma_data": float("nan")}, "card.parametrisation.sigma_data is nan"),
    ({"parametrisation.apply": "x"}, "card.parametrisation has no field 'apply'"),
    ({"parametrisation.condition": "x"}, "card.parametrisation.condition is 'x'; give one of index"),
    ({"parametrisation.bounds": [80, 1]}, "give the smaller one first"),
    ({"process": 5}, "card.process is 5"),
    ({"process": "EDM"}, "card.process is 'EDM'"),
    ({"process.name": "NoSuch"}, "card.process.name is 'NoSuch'; known are EDM"),
    ({"process.name": "__class__"}, "card.process.name is '__class__'"),
    ({"process.evil": 1}, "card.process has no field 'evil'"),
    ({"process": {"name": "Blurring", "shape": [40_000, 40_000]}}, "card.process.shape is [40000, 40000]"),
    ({"process": {"name": "Blurring", "shape": [4000, 4000]}}, "card.process.shape is [4000, 4000], card.shape [8, 8"),
    ({"process": {"name": "Blurring", "shape": [8, 8]}}, "does not go with parametrisation 'edm'"),
    ({"process": {"name": "Relay", "shape": [8, 8], "block": 3}}, "card.process.block is 3; it must divide the sides"),
    ({"process": {"name": "VP", "beta_min": 0.1, "beta_max": 1.0}}, "a VP whose betas"),
    ({"process": {"name": "VE", "sigma_min": 1, "sigma_max": 1}}, "give a larger sigma_max"),
    ({"shape": 5}, "card.shape is 5"),
    ({"shape": "8x8"}, "card.shape is '8x8'"),
    ({"shape": None}, "card.shape is None"),
    ({"shape": ...}, "card.shape is missing"),
    ({"shape": ["8", "8", "3"]}, "card.shape is ['8', '8', '3']"),
    ({"shape": [8, 3]}, "card.shape is [8, 3]; give (H, W, C)"),
    ({"shape": [0, 8, 3]}, "card.shape is [0, 8, 3]"),
    ({"shape": [10**6, 10**6, 3]}, "card.shape is [1000000, 1000000, 3]"),
    ({"shape": [8192, 8192, 3]}, "give at most"),
    ({"shape": [7, 8, 3]}, "multiples of 2"),
    ({"shape": [8, 8, 1]}, "out_channels is 3; a picture of shape [8, 8, 1] wants 1"),
    ({"range": [0, 1]}, "card.range is [0, 1]"),
    ({"layout": "CHW"}, "card.layout is 'CHW'"),
    ({"parameters": 7}, "its card says 7"),
    ({"parameters": "many"}, "card.parameters is 'many'"),
    ({"sha256": 5}, "card.sha256 is 5"),
    ({"sha256": "0" * 64}, "copy both files again"),
    ({"version": 2}, "card.version is 2; this diffinv knows 1"),
    ({"version": True}, "card.version is True"),
    ({"scale": 4}, "card.parametrisation has no field 'parametrisation'"),
    ({"labels": {"a": 1}}, "card.labels is {'a': 1}"),
    ({"data": "x\x1b[2J"}, "card.data is"),
    ({"certificate": "certified"}, "card.certificate is 'certified'"),
    ({"certificate": {"values": [[1, "x"]]}}, "card.certificate"),
    (b"", "is not JSON"),
    (b"[1]", "holds a list, not a JSON object"),
    (b"{}", "has no sha256"),
    (DEEP, "nested too deeply"),
    (b'{"sha256": 1, "sha256": 2}', "names 'sha256' twice"),
    (b"\xff\xfe" + '{"sha256": 1}'.encode("utf-16-le"), "not JSON in UTF-8"),
    (b" " * 2**23 + b"{}", "the limit is 8388608 bytes"),
]


def changed(card, changes):
    """The card with dotted fields replaced; `...` takes one away."""
    card = copy.deepcopy(card)
    for path, value in changes.items():
        *sections, name = path.split(".")
        inner = card
        for section in sections:
            inner = inner[section]
        inner[name] = value
        if value is ...:
            del inner[name]
    return card


@pytest.mark.parametrize("change, line", WRONG, ids=range(len(WRONG)))
def test_each_wrong_card_is_one_line(home, change, line):
    card = change if isinstance(change, bytes) else changed(home[1], change)
    assert line in put(home, card)


def test_a_pipe_as_card_or_weights_is_refused_and_not_waited_for(tmp_path, home):
    os.mkfifo(tmp_path / "x.json")
    assert "a pipe or a device" in refusal(tmp_path / "x")
    (tmp_path / "y.json").write_text(json.dumps(home[1]))
    os.mkfifo(tmp_path / "y.safetensors")
    assert "a pipe or a device" in refusal(tmp_path / "y")


def test_a_card_is_checked_in_no_time(home):
    """Of the largest published network, whose tracing would take seconds."""
    fields = {"channels": 256, "multipliers": [1, 1, 2, 2, 4, 4], "blocks": 2, "attention": [8, 16, 32]}
    card = {**home[1], "architecture": {"name": "unet", **fields, "out_channels": 6}, "shape": [256, 256, 3]}
    card["parametrisation"] = {"parametrisation": "eps", "learned_variance": True}
    card["process"] = {"name": "discrete", "kind": "linear", "steps": 1000}
    start = time.process_time()
    cards.require_card(card, "x.json")
    assert len(cards.expected_shapes(card)) == 566 and time.process_time() - start < 0.05


def test_cards_without_a_version_are_of_the_first(home):
    old = {name: value for name, value in home[1].items() if name != "version"}
    Path(f"{home[0]}.json").write_text(json.dumps(old))
    assert weights.load_prior(str(home[0])).shape == (8, 8, 3)
    for name in ("prior32", "ctmsr_x4"):
        assert weights.read_card(weights.embedded(name))["version"] == 1


def test_a_checkpoint_of_the_other_kind_is_named(home):
    with pytest.raises(ValueError, match=r"ctmsr_x4\.json is of an upscaler, and prior is wanted"):
        weights.load_prior(weights.embedded("ctmsr_x4"))
    with pytest.raises(ValueError, match=r"ctmsr_x4\.json is of an upscaler, and prior is wanted"):
        weights.read_card(weights.embedded("ctmsr_x4"), "prior")
    with pytest.raises(ValueError, match=r"prior32\.json is of a prior, and upscaler is wanted"):
        weights.load_upscaler(weights.embedded())


def spoilt(change):
    """The weights after `change` of their flat dict, beside a card whose digest and count fit."""

    def write(params, folder):
        flat = weights.flatten(params)
        change(flat)
        card = dict(CARD)
        weights.save(str(folder / "w"), {"x": np.zeros(1, np.float32)}, {})
        content = tensors.written({name: np.ascontiguousarray(value) for name, value in flat.items()})
        card |= {"sha256": hashlib.sha256(content).hexdigest()}
        (folder / "w.safetensors").write_bytes(content)
        (folder / "w.json").write_text(json.dumps(card))
        return refusal(folder / "w")

    return write


KERNEL = "params/out_2/kernel"
BROKEN = {
    "missing": (lambda flat: flat.pop(KERNEL), "out_2/kernel' is absent among the weights"),
    "extra": (lambda flat: flat.update(evil=np.zeros(3, np.float32)), "'evil' is (3,) among the weights and absent"),
    "transposed": (lambda flat: flat.update({KERNEL: flat[KERNEL].swapaxes(2, 3)}), "is (3, 3, 3, 8) among the"),
    "nan": (lambda flat: flat.update({KERNEL: flat[KERNEL] * np.float32(np.nan)}), "out_2/kernel' is not finite"),
    "int8": (lambda flat: flat.update({KERNEL: flat[KERNEL].astype(np.int8)}), "out_2/kernel' is int8"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_spoilt_weights_are_named(params, tmp_path, kind):
    change, line = BROKEN[kind]
    assert line in spoilt(change)(params, tmp_path)


@pytest.mark.parametrize("content", [b"\0" * 64, b"\xff" * 64, b"", b"\x10" + b"\0" * 7 + b"{" * 16])
def test_a_broken_header_with_a_fitting_digest(home, tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    (tmp_path / "x.json").write_text(json.dumps({**home[1], "sha256": hashlib.sha256(content).hexdigest()}))
    assert "no safetensors file" in refusal(tmp_path / "x")


ATOMS = st.sampled_from(
    [None, True, -1, 0, 1, 2**31, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", "edm", "../x", "a\nb", [], {}]
)
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def places(card, prefix=()):
    """Every place of the card, sections and lists included."""
    for name, value in card.items() if isinstance(card, dict) else enumerate(card):
        yield (*prefix, name)
        if isinstance(value, (dict, list)):
            yield from places(value, (*prefix, name))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_change_of_a_card_loads_or_is_a_line(home, data):
    card = copy.deepcopy(home[1])
    for _ in range(data.draw(st.integers(1, 3))):
        *sections, name = data.draw(st.sampled_from(list(places(card))))
        inner = card
        for section in sections:
            inner = inner[section]
        inner[name] = data.draw(VALUES)
    Path(f"{home[0]}.json").write_text(json.dumps(card))
    try:
        prior = weights.load_prior(str(home[0]))
    except ValueError as error:
        assert str(home[0]) in str(error) and "\n" not in str(error)
    else:
        assert prior.shape == (8, 8, 3)


def test_given_numbers_keep_their_kind(params, tmp_path):
    """A whole number is a label, 0.7 is 0.7; for a network of one's own, whose card needs no architecture."""
    card = {name: CARD[name] for name in ("parametrisation", "process", "shape")}
    own = {"w": np.ones(3, np.float32)}
    weights.save(str(tmp_path / "own"), own, {**card, "given": {"label": 2, "strength": 0.7, "code": [1, 2.5]}})

    def apply(params, x, condition, label, strength, code):
        return x * params["w"][0] * strength + label.astype(x.dtype) + jnp.sum(code)

    prior = weights.load_prior(str(tmp_path / "own"), process.VP(), apply=apply)
    extra = prior.denoise.extra
    assert extra["label"].dtype == jnp.int32 and float(extra["strength"]) == np.float32(0.7)
    np.testing.assert_array_equal(extra["code"], np.float32([1, 2.5]))
    assert np.isfinite(prior.denoise(jnp.ones((8, 8, 3), jnp.float32), jnp.float32(0.5))).all()
    with pytest.raises(ValueError, match=r"own\.json: card.architecture is missing"):
        weights.load_prior(str(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"\['remat'\] are fields of our networks"):
        weights.load_prior(str(tmp_path / "own"), apply=apply, remat=True)


def test_the_state_of_an_nnx_model_is_saved(tmp_path):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = (
                nnx.List([nnx.Linear(2, 3, rngs=rngs)]) if hasattr(nnx, "List") else [nnx.Linear(2, 3, rngs=rngs)]
            )

    model = Model(nnx.Rngs(0))
    weights.save(str(tmp_path / "nnx"), nnx.state(model, nnx.Param), {})
    found = nnx.restore_int_paths(weights.restore(str(tmp_path / "nnx"))[0])
    np.testing.assert_array_equal(found["layers"][0]["kernel"], model.layers[0].kernel[...])
    with pytest.raises(ValueError, match=r"a module; give its state: nnx.state\(model, nnx.Param\)"):
        weights.save(str(tmp_path / "no"), model, {})
    for wrong, line in (([1], "a list"), ({"a/b": np.ones(2)}, "'a/b'"), ({"a": "x"}, "arrays of numbers alone")):
        with pytest.raises(ValueError, match=line):
            weights.save(str(tmp_path / "no"), wrong, {})


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\nb", "..", ""])
def test_nothing_is_saved_under_a_name_that_is_a_path(tmp_path, name):
    with pytest.raises(ValueError, match="card.name is .*; give a name without a path"):
        weights.save(str(tmp_path / "out" / "x"), {"w": np.ones(2, np.float32)}, {"name": name})
    assert not list(tmp_path.iterdir())


def test_broken_weights_are_not_saved_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="weight 'w' is not finite"):
        weights.save(str(tmp_path / "x"), {"w": np.full(2, np.nan, np.float32)}, {})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        weights.save(str(tmp_path / "x"), {"w": np.ones(2, np.float32)}, {})
    assert not list(tmp_path.iterdir())
