"""The judge of a prior: a consistency model is sampled in one step and in two, and its card gets both numbers."""

import os
import sys
from unittest import mock

import forking
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from flax import struct
from PIL import Image
from training_command import FLAGS

import diffinv as di
from diffinv import data, process, weights
from diffinv.nn import unet
from experiments import judge as entry

FIELDS = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 8, "patch": 4}


@pytest.fixture(params=[(32, 32, 3), (16, 24, 1)], ids=["RGB", "grey, not square"])
def saved(tmp_path, request):
    """A consistency model with drawn weights, and 8 pictures to compare it with."""
    shape, fields = request.param, {**FIELDS, "out_channels": request.param[2]}
    net = unet.UNet(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})
    params = jax.jit(net.init, compiler_options=FAST)(jax.random.key(0), jnp.zeros(shape), jnp.zeros(()))
    card = {
        "name": "made",
        "architecture": {"name": "unet", **fields},
        "parametrisation": {"parametrisation": "edm", "sigma_data": 0.5},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "shape": list(shape),
        "consistency": {"name": "ect", "second_time": False, "middle": 0.5},
    }
    weights.save(str(tmp_path / "made"), jax.tree.map(np.asarray, params), card)
    (tmp_path / "pictures").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path, shape


@pytest.mark.slow
def test_a_consistency_model_is_judged_in_one_step_and_in_two(saved):
    """At the prior's own size and channels, whatever the pictures have; the two grids are of eight samples."""
    saved, (rows, columns, channels) = saved
    command = [
        sys.executable,
        "-m",
        "experiments.judge",
        f"--data={saved / 'pictures'}",
        f"--prior={saved / 'made'}",
    ]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    run = lambda *more: forking.run([*command, *more], env)
    done = run("--count=8", "--batch=4", "--card", f"--grid={saved}/{{steps}}.png")
    assert done.returncode == 0, done.stderr
    notes = weights.read_card(str(saved / "made"))["sample_quality"]
    assert [f"of {n} consistency step" in note["name"] for n, note in zip((1, 2), notes)] == [True, True]
    assert notes[0]["value"] != notes[1]["value"] and notes[0]["floor"] == notes[1]["floor"] > 0
    assert all(str(note["value"]) in done.stdout for note in notes)
    kid = [note["EffNetLite0-KID"] for note in notes]
    assert kid[0] != kid[1] and all(f"{value} ± {half}" in done.stdout and half > 0 for value, half in kid)
    assert "memorisation is not judged, for --data has no split" in done.stdout and "memorisation" not in notes[0]
    for steps in (1, 2):
        with Image.open(saved / f"{steps}.png") as grid:
            assert grid.size == (2 * 2 * columns, 2 * 2 * rows) and grid.mode == {1: "L", 3: "RGB"}[channels]
    kind = {1: "grey", 3: "RGB"}[channels]
    assert f"compared at {rows} x {columns}, {kind}: 8 pictures" in done.stdout
    wrong = run("--count=8", "--steps=3")
    assert wrong.returncode != 0 and "--steps is 3" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({}, None),
        ({"given": {"label": 3}, "label_null": 3}, None),
        ({"given": {"label": 1}, "labels": ["cat", "dog"]}, 0),
        ({"given": {"label": 2}}, 1),
    ],
)
def test_a_prior_of_one_label_is_compared_with_its_pictures(card, expected):
    assert entry.label_of(card, ("dog", "2")) == expected
    if expected is not None:
        with pytest.raises(ValueError, match="which --data does not have"):
            entry.label_of(card, ("",))


def test_held_out_pictures_have_the_priors_shape(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), np.uint8)
    labels = {"train_labels": [0] * 6, "test_labels": [0, 1, 0, 1]}
    np.savez(tmp_path / "x.npz", train_images=pixels, test_images=pixels[:4], **labels)
    flags = [("data", str(tmp_path / "x.npz")), ("count", 4), ("seed", 3), ("crop", 0)]
    with mock.patch.multiple(entry, **{n.upper(): mock.Mock(value=v) for n, v in flags}):
        for shape in ((10, 10, 3), (10, 20, 1)):
            found = entry.held_out(shape, {})
            expected = data.read(str(tmp_path / "x.npz"), shape[:2], 1, channels=shape[2], seed=3).pixels
            np.testing.assert_array_equal(data.to_pixels(found), expected)
            assert found.shape == (4, *shape)
        with pytest.raises(ValueError, match="holds 2 pictures, fewer than --count=4"):
            entry.held_out((10, 10, 3), {"given": {"label": 1}})


def test_the_training_pictures_are_those_of_the_training_split(tmp_path, capsys):
    train, test = (np.random.default_rng(i).integers(0, 256, (n, 8, 8, 3), np.uint8) for i, n in ((0, 5), (1, 3)))
    np.savez(tmp_path / "split.npz", train_images=train, test_images=test)
    np.savez(tmp_path / "whole.npz", images=train)
    for name, most, count in (("split", 20, 5), ("split", 2, 2), ("split", 0, None), ("whole", 20, None)):
        flags = [
            ("data", str(tmp_path / f"{name}.npz")),
            ("training", most),
            ("seed", 0),
            ("classes", False),
            ("crop", 0),
        ]
        with mock.patch.multiple(entry, **{n.upper(): mock.Mock(value=v) for n, v in flags}):
            found = entry.training((8, 8, 3), {})
        if count is None:
            assert found is None
        else:
            assert len(found.pixels) == len(found.labels) == count and not found.labels.any()
            assert {each.tobytes() for each in found.pixels} <= {each.tobytes() for each in train}
    assert capsys.readouterr().out.count("memorisation is not judged, for --data has no split") == 1


def test_squares_are_of_the_split_that_the_training_had(tmp_path):
    """Of 17 pictures without a split every 16th is held out, the second first; a square is of one picture."""
    values = np.arange(17, dtype=np.uint8) * 10
    np.savez(tmp_path / "x.npz", images=np.broadcast_to(values[:, None, None, None], (17, 12, 12, 3)))
    flags = {"data": str(tmp_path / "x.npz"), "crop": 4, "seed": 0, "count": 4, "training": 50, "classes": False}
    with mock.patch.multiple(entry, **{n.upper(): mock.Mock(value=v) for n, v in flags.items()}):
        held, trained = entry.held_out((8, 8, 3), {}), entry.training((8, 8, 3), {})
        assert held.shape == (4, 8, 8, 3) and set(data.to_pixels(held).ravel()) == {10}
        found = trained.pixels.reshape(len(trained.pixels), -1)
        assert len(found) == 50 and (found == found[:, :1]).all() and 10 not in found
        other = entry.squares((8, 8, 1), "train", 1000).pixels
        assert other.shape == (16 * 4, 8, 8, 1)
        with pytest.raises(ValueError, match="--crop is 4, and the prior is of 8 x 12"):
            entry.held_out((8, 12, 3), {})


def test_classes_and_squares_exclude_each_other(pack):
    with flagged(pack, crop=4), pytest.raises(ValueError, match="--classes is given with --crop"):
        entry.require_labels({"labels": ["a", "b"], "label_null": 2})


@pytest.fixture
def pack(tmp_path):
    """Grey values that tell their label: 0 to 9, 100 to 109, 200 to 205, and a test picture of each label."""
    values = np.concatenate([np.arange(10), 100 + np.arange(10), 200 + np.arange(6)]).astype(np.uint8)
    whole = lambda values: np.broadcast_to(values[:, None, None, None], (len(values), 8, 8, 1))
    labels = {"train_labels": values // 100, "test_labels": [0, 1, 2]}
    path = tmp_path / "labelled.npz"
    np.savez(path, train_images=whole(values), test_images=whole(np.uint8([50, 150, 250])), **labels)
    return str(path)


def flagged(pack, **flags):
    known = {"data": pack, "training": 24, "seed": 0, "count": 6, "classes": True, "weight": 1.0, "batch": 4, "crop": 0}
    return mock.patch.multiple(entry, **{n.upper(): mock.Mock(value=v) for n, v in (known | flags).items()})


def test_labels_are_those_of_the_prior_and_as_many_of_each(pack):
    """The card's order is its own; eight of each of three labels, six where there are no more."""
    card = {"labels": ["2", "0", "1"], "label_null": 3}
    with flagged(pack):
        found, test = entry.training((8, 8, 1), card), entry.by_label((8, 8, 1), card, 1, 2)
    assert np.bincount(found.labels).tolist() == [6, 8, 8] and test.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.pixels[:, 0, 0, 0] // 100, np.array([2, 0, 1])[found.labels])
    assert test.pixels[:, 0, 0, 0].tolist() == [250, 50, 150]


@pytest.mark.parametrize(
    ("card", "flags", "words"),
    [
        ({}, {}, "no labels"),
        ({"labels": ["cat"], "label_null": 1}, {}, "no labels"),
        ({"labels": ["cat", "dog"]}, {}, "none for nothing"),
        ({"labels": ["cat", "dog"], "label_null": 2}, {"training": 0}, "--classes needs training pictures"),
        ({"labels": ["cat", "dog"], "label_null": 2}, {"data": "gradients"}, None),
        ({"labels": ["cat", "dog"], "label_null": 2}, {"data": "photographs"}, "--classes needs training pictures"),
        ({}, {"classes": False}, None),
    ],
)
def test_classes_need_labels_and_training_pictures(pack, card, flags, words):
    with flagged(pack, **flags):
        if words is None:
            entry.require_labels(card)
            return
        with pytest.raises(ValueError, match=words):
            entry.require_labels(card)


def test_samples_are_drawn_of_their_label_by_guidance(pack):
    """A law that is a point for each label, 0 for nothing: guidance of weight w ends at w times the label's point."""

    @struct.dataclass
    class Points:
        process: process.Process
        label: jax.Array

        def given(self, label):
            return self.replace(label=label)

        def __call__(self, x, t):
            return jnp.full_like(x, 0.2) * (jnp.asarray([1, -1, 2, 0], x.dtype)[self.label])

    forward, labels = process.EDM(), np.array([0, 1, 2, 1, 0])
    prior = di.Prior(forward, Points(forward, jnp.int32(3)), (4, 4, 1))
    for weight in (1.0, 2.0):
        with flagged(pack, weight=weight):
            x = entry.draw_labels(prior, 3, labels, di.times.karras(8), di.samplers.heun)
        expected = 0.2 * weight * np.array([1, -1, 2])[labels]
        np.testing.assert_allclose(x, np.broadcast_to(expected[:, None, None, None], x.shape), atol=1e-5)


def test_the_agreement_counts_what_is_taken_for_its_label(pack):
    """Two features that name the label of three: of six samples two are of another one."""
    rng = np.random.default_rng(0)
    make = lambda labels: entry.Seen(np.eye(3)[labels] + 0.01 * rng.normal(size=(len(labels), 3)), np.zeros(1))
    labels, asked = np.arange(60) % 3, np.array([0, 1, 2, 0, 1, 2])
    judge = entry.taught(make(labels), labels, make(np.array([0, 1, 1, 2])), np.array([0, 1, 2, 2]))
    with flagged(pack, weight=3.0):
        note = entry.agreement(judge, make(np.array([0, 1, 2, 1, 2, 2])).features, asked, ["a", "b", "c"])
    shares = {"a": 0.5, "b": 0.5, "c": 1.0}
    assert note == {"guidance": 3.0, "agreement": 0.6667, "held_out_accuracy": 0.75, "by_label": shares}
    quality = entry.quality(rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), 1, "Heun")
    line = entry.told({**quality, "classes": note}).splitlines()[-1]
    with flagged(pack, weight=3.0):
        plain = entry.agreement(judge, make(np.array([0, 1, 2, 1, 2, 2])).features, asked, ["a", "b", "c"], False)
    assert plain == {name: value for name, value in note.items() if name != "guidance"}
    assert "classes: 0.6667" in entry.told({**quality, "classes": plain}).splitlines()[-1]
    assert "guidance 3: 0.6667" in line and "held-out pictures 0.75" in line and "a 0.5, b 0.5, c 1.0" in line


def looked(pixels):
    """What pictures are compared by, with their rows as features."""
    flat = np.asarray(data.to_unit(pixels)).reshape(len(pixels), -1)
    return entry.Seen(flat @ np.random.default_rng(9).normal(size=(flat.shape[1], 7)), flat)


def test_samples_that_are_training_pictures_are_told_and_shown(tmp_path):
    """All of them, the held-out ones themselves, and four of twenty: shares 1, 0.05 and 0.2, and the pairs alike."""
    rng = np.random.default_rng(0)
    train, held = (rng.integers(0, 256, (n, 4, 6, 3), np.uint8) for n in (60, 40))
    memory = entry.remembered(train, looked(train), looked(held))
    shares = lambda pixels: list(entry.repeated(memory, looked(pixels))[0].values())
    assert shares(train[:20]) == [1, 1, 0.05, 60] and shares(held) == [0.05, 0.05, 0.05, 60]
    far = np.where(np.arange(20)[:, None, None, None] < 4, train[10:30], np.uint8(0))
    told, near = entry.repeated(memory, looked(far))
    assert list(told.values())[:2] == [0.2, 0.2] and near.place[:4].tolist() == [10, 11, 12, 13]
    entry.pairs(np.asarray(data.to_unit(far)), memory, near, str(tmp_path / "pairs.png"))
    with Image.open(tmp_path / "pairs.png") as image:
        sheet = np.asarray(image)[::2, ::2].reshape(2, 4, 8, 6, 3).swapaxes(1, 2)
    np.testing.assert_array_equal(sheet[:, :4], [train[10:14], train[10:14]])
    assert (sheet[0, 4:] == 0).all()


def test_what_pictures_are_compared_by():
    """Bytes and floats alike; a small picture's own pixels, and 16 x 16 of a large one."""
    judge = mock.Mock(pooled=lambda x: x.mean((0, 1)))
    x = np.random.default_rng(0).integers(0, 256, (12, 9, 1), np.uint8)
    found, floats = entry.seen(judge, jnp.asarray(x)), entry.seen(judge, data.to_unit(jnp.asarray(x)))
    np.testing.assert_allclose(found.pixels, np.asarray(data.to_unit(x)).ravel(), atol=1e-6)
    np.testing.assert_allclose(found.features, np.repeat(np.asarray(data.to_unit(x)).mean(), 3), rtol=1e-5)
    assert all((a == b).all() for a, b in zip(found, floats))
    plain = entry.seen(judge, jnp.full((64, 48, 3), 0.25)).pixels
    assert plain.shape == (16 * 16 * 3,) and np.allclose(plain, 0.25)


def test_a_note_of_samples_of_the_pictures_law_is_its_floors():
    """Sampled from the same features: FID and KID differ from their floors by no more than their errors."""
    rng = np.random.default_rng(0)
    fake, real = rng.normal(size=(400, 5)), rng.normal(size=(400, 5))
    note = entry.quality(fake, real, 18, "Heun")
    assert note["half"] == pytest.approx(note["floor"], rel=0.5) and note["value"] < note["half"]
    (value, half), (floor, wide) = note["EffNetLite0-KID"], note["EffNetLite0-KID floor"]
    assert abs(value) < half < wide and abs(floor) < wide
    away = entry.quality(fake + 1, real, 1, "Heun")
    assert away["EffNetLite0-KID"][0] > 4 * away["EffNetLite0-KID"][1] > 0 and "18 Heun steps" in note["name"]


def test_held_out_pictures_are_drawn_where_they_lie_by_class(tmp_path):
    """Ten pictures of each of four grey values, in order: the first twelve would be of two values."""
    values = np.repeat(np.arange(4, dtype=np.uint8) * 80, 10)
    np.savez(tmp_path / "x.npz", images=np.broadcast_to(values[:, None, None, None], (40, 4, 4, 1)), labels=values)
    flags = [("data", str(tmp_path / "x.npz")), ("count", 12), ("crop", 0)]
    drawn = []
    for seed in (0, 0, 1):
        given = [*flags, ("seed", seed)]
        with mock.patch.multiple(entry, **{n.upper(): mock.Mock(value=v) for n, v in given}):
            drawn.append(data.to_pixels(entry.held_out((4, 4, 1), {}))[:, 0, 0, 0].tolist())
    assert len(set(drawn[0])) == 4 and drawn[0] == drawn[1] != drawn[2]
    assert max(drawn[0].count(value) for value in set(drawn[0])) <= 10


@pytest.mark.parametrize(
    ("given", "runs", "words"),
    [
        ({"grid": "{place}/x.png"}, 2, "--grid is .*, one file for 2 of them; put {steps} into its name"),
        ({"pairs": "{place}/x.png"}, 2, "--pairs is .*, one file for 2 of them; put {steps} into its name"),
        ({"pairs": "{place}/x.gif"}, 1, "--pairs is .*; give the name of a .png"),
        ({"grid": "{place}/x.bmq"}, 1, "give the name of a .png"),
        ({"grid": "{place}/file/x.png"}, 1, "--grid is .*, where no file can be written"),
        ({"card": True}, 1, "--prior is .*, where no file can be written"),
    ],
)
def test_what_cannot_be_written_is_noticed_before_the_work(tmp_path, given, runs, words):
    (tmp_path / "file").write_text("")
    flags = {"grid": "", "pairs": "", "card": False} | given
    flags |= {name: flags[name].replace("{place}", str(tmp_path)) for name in ("grid", "pairs")}
    with mock.patch.multiple(entry, **{n.upper(): mock.Mock(value=v) for n, v in flags.items()}):
        with pytest.raises((ValueError, OSError), match=words):
            entry.require_places(str(tmp_path / "file" / "prior"), runs)


def test_samples_that_are_not_finite_are_not_judged():
    """Of four samples one is NaN."""
    prior = mock.Mock(side_effect=AssertionError)
    flags = {"COUNT": mock.Mock(value=4), "SEED": mock.Mock(value=0)}
    broken = np.where(np.arange(4)[:, None, None, None] == 2, np.nan, np.zeros((4, 2, 2, 1)))
    with mock.patch.multiple(entry, mapped=lambda *_, note: broken, **flags):
        with pytest.raises(ValueError, match="1 of 4 samples are not finite"):
            entry.draw(prior, np.linspace(1, 0, 3), None)


def test_a_batch_is_no_larger_than_what_there_is(tmp_path):
    with mock.patch.multiple(entry, BATCH=mock.Mock(value=10**9)):
        sizes = []
        double = lambda rows: (sizes.append(len(rows)), 2 * rows)[1]
        np.testing.assert_array_equal(entry.mapped(double, np.arange(11), note=""), 2 * np.arange(11))
    assert sizes == [16]  # of the eight devices


def test_a_grid_of_grey_pictures(tmp_path):
    samples = np.linspace(-1, 1, 5 * 4 * 6, dtype=np.float32).reshape(5, 4, 6, 1)
    entry.grid(samples, str(tmp_path / "{x}.png"))
    with Image.open(tmp_path / "{x}.png") as image:
        assert image.mode == "L" and image.size == (24, 16)
