"""A training's configuration, its pictures and its folder: refused in one line before anything compiles."""

import json
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffinv import data, schema, weights
from diffinv.data.builders import Resident, Source
from diffinv.weights import cards
from experiments.common import provenance
from experiments.tasks import fields, run

MODES = {
    "prior32": ("", "smoke"),
    "prior32_cond": ("", "smoke"),
    "prior64": ("", "smoke"),
    "satellite64": ("", "smoke"),
    "photo": ("", "smoke"),
    "satellite_base": ("", "smoke"),
    "brain_base": ("", "smoke"),
    "brain128": ("", "smoke"),
    "blurring32": ("", "smoke"),
    "heat32": ("", "smoke"),
    "ict32": ("", "small", "smoke"),
    "ect32": ("", "small", "smoke"),
    "cascade_digits": ("", "smoke"),
    "cascade_eurosat": ("", "16", "32", "64", "smoke"),
    "one_step_digits": ("", "smoke"),
    "relay_digits": ("", "smoke"),
    "autoencoder": ("", "smoke"),
    "latent_prior": ("", "smoke"),
    "ctmsr_x4": ("", "dtm", "distortion", "multistep", "accelerator", "published", "smoke"),
}


def configured(which="prior32", mode="smoke", **changes):
    config = import_module(f"configs.{which}").get_config(mode)
    config.data = config.data or "pictures"
    if mode == "published":
        config.lpips_vgg = config.lpips_linear = "given"
    with config.unlocked(), config.ignore_type():
        for path, value in changes.items():
            *sections, field = path.split("__")
            inner = config
            for section in sections:
                inner = inner[section]
            inner[field] = value
    return config


def refused(config):
    """The first line, as the command finds it."""
    for line in schema.refusals(fields.fields(config), config.to_dict(), "config"):
        return line
    with pytest.raises(ValueError) as error:
        fields.check(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name, mode", [(name, mode) for name, modes in MODES.items() for mode in modes])
def test_every_shipped_configuration_is_accepted(name, mode):
    config = configured(name, mode)
    assert not list(schema.refusals(fields.fields(config), config.to_dict(), "config"))
    fields.check(config)


NAN = float("nan")
SONG = {
    "architecture": "song",
    "net": {
        "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "noise_channels": 2, "fourier": True,
        "residual": True, "taps": (1.0, 3.0, 3.0, 1.0), "dropout": 0.1, "remat": False, "dtype": "float32",
    },
}  # fmt: skip
WRONG = [
    ("prior32", {"net__channels": 0}, "config.net.channels is 0; give a whole number at least 2"),
    ("prior32", {"net__multipliers": ()}, "config.net.multipliers is (); give a list of 1 to 12"),
    ("prior32", {"net__multipliers": (0,)}, "config.net.multipliers is (0,)"),
    ("prior32", {"net__patch": 0}, "config.net.patch is 0"),
    ("prior32", {"net__patch": 3}, "config.size is 8; config.net wants a multiple of 6"),
    ("prior32", {"net__blocks": 0}, "config.net.blocks is 0"),
    ("prior32", {"net__dtype": "float31"}, "config.net.dtype is 'float31'"),
    ("prior32", {"net__channels": 8192, "net__multipliers": (8, 8)}, "weights; give fewer"),
    ("prior32", {"size": 1_000_000}, "config.size is 1000000"),
    ("prior32", {"size": 4096, "batch": 1024}, "config.batch is 1024; pictures of 4096 pixels"),
    ("prior32", {"shift": 100}, "config.shift is 100; give less than config.size, which is 8"),
    ("prior32", {"sigma_data": NAN}, "config.sigma_data is nan; give a number above 0"),
    ("prior32", {"learning_rate": NAN}, "config.learning_rate is nan"),
    ("prior32", {"weight_decay": NAN}, "config.weight_decay is nan"),
    ("prior32", {"b1": 1}, "config.b1 is 1.0; give a number at least 0 and below 1"),
    ("prior32", {"b2": -1}, "config.b2 is -1"),
    ("prior32", {"clip": 0}, "config.clip is 0"),
    ("prior32", {"batch": 0}, "config.batch is 0"),
    ("prior32", {"accumulate": 3}, "config.accumulate is 3; it must divide the batch"),
    ("prior32", {"steps": 0}, "config.steps is 0"),
    ("prior32", {"ema_half_lives": ()}, "config.ema_half_lives is ()"),
    ("prior32", {"name": "../x"}, "config.name is '../x'; give a name without a path"),
    ("prior32", {"name": "x\ny"}, "config.name is 'x\\ny'"),
    ("prior32", {"channels": 4}, "config.channels is 4; give one of 3, 1"),
    ("prior32", {"optimizer": "adam"}, "config.optimizer is 'adam'; did you mean"),
    ("prior32", {"task": "denoise"}, "config.task is 'denoise'; did you mean 'denoising'?"),
    ("prior32", {"data": ""}, "config.data is ''; name the pictures"),
    ("prior32", {"stepz": 1}, "config has no field 'stepz'; did you mean 'steps'?"),
    ("prior32", {"seed": -1}, "config.seed is -1"),
    ("prior32", {"classes": -1}, "config.classes is -1"),
    ("ict32", {"method": "icd"}, "config.method is 'icd'"),
    ("ict32", {"options__ict__s1": 2}, "config.options.ict.s1 is 2; give at least s0"),
    ("ict32", {"options__meanflow__std": NAN}, "config.options.meanflow.std is nan"),
    ("ict32", {"middle": 0}, "config.middle is 0"),
    ("blurring32", {"process__sigma_blur": -1}, "config.process.sigma_blur is -1"),
    ("relay_digits", {"process__block": 3}, "config.process.block is 3; give a divisor of config.size, 8"),
    ("blurring32", {"process__name": "Blur"}, "config.process.name is 'Blur'"),
    ("blurring32", {"eval_levels": (0.5, 2.0)}, "config.eval_levels are times"),
    ("blurring32", {"weighting": "x"}, "config.weighting is 'x'"),
    ("ctmsr_x4", {"scale": 1}, "config.scale is 1"),
    ("ctmsr_x4", {"architecture": "unet"}, "give one of srnet, ctmsr"),
    (
        "prior32",
        {"architecture": "srnet"},
        "config.architecture is 'srnet'; did you mean 'unet'? give one of unet, song",
    ),
    ("prior32", {"architecture": "song"}, "config.net has no field 'head_channels'"),
    ("prior32", {**SONG, "net__channels": 3}, "config.net.channels make"),
    ("ctmsr_x4", {"net__blocks": 0}, "config.net.blocks is 0"),
    ("ctmsr_x4", {"matching_t_min": 0.5}, "config.matching_t_min is 0.5; give less than"),
    ("ctmsr_x4", {"perceptual": "lpips"}, "config.lpips_vgg and lpips_linear are wanted"),
]


@pytest.mark.parametrize("name, changes, line", WRONG, ids=range(len(WRONG)))
def test_each_wrong_field_is_one_line(name, changes, line):
    assert line in refused(configured(name, **changes))


ATOMS = st.sampled_from([None, True, -1, 0, 2**40, 0.5, NAN, float("inf"), "", "x", "../x", (), (0,), (NAN,), {}])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(MODES)), st.data())
def test_any_value_in_any_field_is_accepted_or_a_line(name, draw):
    config = configured(name)
    rows = [path for path, _ in schema.flat_fields(fields.fields(config))]
    *sections, field = draw.draw(st.sampled_from(rows)).split(".")[1:]
    inner = config
    for section in sections:
        inner = inner[section]
    with config.unlocked(), config.ignore_type():
        inner[field] = draw.draw(ATOMS)
    for line in schema.refusals(fields.fields(config), config.to_dict(), "config"):
        assert "\n" not in line
        return
    try:
        fields.check(config)
    except ValueError as error:
        assert "\n" not in str(error)


def test_the_help_tells_every_field():
    config = configured("ict32")
    told = schema.explain(fields.fields(config), config)
    assert "--config.net.channels=8" in told and "--config.options.ict.s0=10" in told


def pictures(seed=0, count=6, classes=("",)):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return Source(Resident(images, np.zeros(count, np.int32)), 8, 3, classes)


def test_a_run_is_the_same_but_for_what_may_be_moved():
    was = run.identity(configured(), pictures())
    assert was == json.loads(json.dumps(was))
    moved = configured(steps=99, cooldown=1, log_every=7, name="other", threads=1)
    run.require_same(was, run.identity(moved, pictures()), "here")
    run.require_same({}, was, "here")
    changes = {"batch": 16, "seed": 1, "sigma_data": 0.4, "learning_rate": 1e-5, "net__dropout": 0.1}
    for field, value in changes.items():
        now = run.identity(configured(**{field: value}), pictures())
        with pytest.raises(ValueError, match=rf"config.{field.replace('__', '.')}: .* then, {value}") as error:
            run.require_same(was, now, "here")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the pictures: .* then, .* now"):
        run.require_same(was, run.identity(configured(), pictures(1)), "here")
    started = run.identity(configured(start="prior32"), pictures())
    with pytest.raises(ValueError, match="config.start: '' then, '27d6c28a"):
        run.require_same(was, started, "here")


def test_a_run_that_was_begun_before_networks_could_be_chosen_goes_on():
    """Also by a configuration that has no such field; another network is another run, and said to be."""
    now = run.identity(configured(), pictures())
    assert "config.architecture" not in now
    before = configured()
    with before.unlocked():
        del before.architecture
    assert not list(schema.refusals(fields.fields(before), before.to_dict(), "config"))
    fields.check(before)
    assert run.identity(before, pictures()) == now
    other = run.identity(configured(**SONG), pictures())
    with pytest.raises(ValueError, match="config.architecture: 'unet' then, 'song' now"):
        run.require_same(now, other, "here")
    with pytest.raises(ValueError, match=r"\(config.architecture: 'song' then, 'unet' now\)"):
        run.require_same({**now, "config.architecture": "song"}, now, "here")


def test_an_export_over_another_model_is_refused(tmp_path):
    path = str(tmp_path / "prior")
    run.require_free(path, "me")
    weights.save(path, {"w": np.ones(1, np.float32)}, {"name": "prior", "run": "me", "steps": 5})
    run.require_free(path, "me")
    with pytest.raises(ValueError, match=r"is of another run \(prior, 5 steps\) and is not overwritten"):
        run.require_free(path, "you")
    (tmp_path / "thesis.json").write_text("years of work")
    with pytest.raises(ValueError, match="no export of ours"):
        run.require_free(str(tmp_path / "thesis"), "me")


def folder(path, count=20):
    path.mkdir()
    for i in range(count):
        colour = np.full((9, 9, 3), 10 * i, np.uint8)
        Image.fromarray(colour).save(path / f"{i}.png")
    return path


def test_a_card_says_what_was_trained_on(tmp_path):
    """Own pictures are no Tiny ImageNet, and their licence is the user's to say."""
    path = folder(tmp_path / "my pictures")
    source = data.source(str(path), 8, "train", str(tmp_path / "kept"))
    said = provenance.about(configured(data=str(path)), source)
    assert said["data"] == f"{len(source)} pictures of 'my pictures', brought to 8 pixels"
    assert said["data_licence"] == "unknown: ask whoever gave you the pictures" and str(tmp_path) not in str(said)
    given = provenance.about(configured(data=str(path), data_name="mine", data_licence="CC0"), source)
    assert (given["data"], given["data_licence"]) == ("mine", "CC0")
    assert provenance.about(configured(data="gradients"), source)["data"] == "generated gradients"
    assert provenance.about(configured(data="cifar10"), source)["data"].startswith("TFDS cifar10; 18 pictures")


@pytest.mark.parametrize(
    "meta, name, licence",
    [
        ({"name": "A pack", "licence": "CC BY 4.0"}, "A pack; ", "CC BY 4.0"),
        ({"name": "Tiny ImageNet-200 subset"}, "Tiny ImageNet-200 subset; ", "non-commercial research, as ImageNet's"),
        ({"name": "x\x1b[2J"}, "x?[2J; ", "unknown"),
        ({"name": 5}, "6 pictures", "unknown"),
    ],
)
def test_a_pack_says_what_it_is(tmp_path, meta, name, licence):
    np.savez(tmp_path / "x.npz", meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))
    said = provenance.about(configured(data=str(tmp_path / "x.npz")), pictures())
    assert said["data"].startswith(name) and said["data_licence"].startswith(licence)
    cards.require_card(
        {"parametrisation": {"parametrisation": "eps"}, "process": {"name": "Flow"}, "shape": [8], **said}, "x", False
    )


def test_the_digest_of_pictures_is_of_all_of_them():
    same, other = pictures(), pictures()
    assert provenance.digest(same) == provenance.digest(other)
    other.records.images[3, 2, 1, 0] ^= 1
    assert provenance.digest(same) != provenance.digest(other)
    assert provenance.digest(same) != provenance.digest(pictures(count=5))


TRAINED = [
    ("prior32_cond", {}),
    ("prior32_cond", SONG),
    ("ict32", {"method": "meanflow"}),
    ("ict32", {"method": "meanflow", **SONG}),
    ("blurring32", {}),
    ("blurring32", SONG),
    ("ctmsr_x4", {}),
    ("photo", {}),
]


@pytest.mark.parametrize("name, changes", TRAINED, ids=[f"{name} {' '.join(changes)}" for name, changes in TRAINED])
def test_every_task_writes_a_card_that_describes_its_weights(name, changes):
    """Also of classes whose names are no text of one line."""
    config = configured(name, **changes)
    fields.check(config)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4, config.size, config.size, config.channels), np.uint8)
    labels = ("a\nb", "c") if config.classes else ("",)
    source = Source(Resident(images, np.zeros(4, np.int32)), config.size, config.channels, labels)
    task = run.task(config)(config, source)
    card = {"name": config.name, **task.card(), "shape": list(task.shape)}
    cards.require_card(json.loads(json.dumps(card)), "x")
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    assert cards.expected_shapes(card) == {path: leaf.shape for path, leaf in flat.items()}


def test_pictures_are_cut_where_the_configuration_says(tmp_path):
    """Two pictures of 24 x 40 into squares of 16 at steps of 8; whole, each is one."""
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    given, kept = {"data": str(tmp_path), "size": 16}, str(tmp_path / "kept")
    count = lambda crop: len(run.task(config := configured("photo", crop=crop, **given)).source(config, "train", kept))
    assert (count(8), count(16), count(0)) == (2 * 2 * 4, 2 * 2 * 3, 2)
    assert "config.crop is -1" in refused(configured("photo", crop=-1))


def test_the_classes_that_are_trained_on_can_be_named(tmp_path):
    """Of three classes two, in the order of the names; a name that is none of them is refused with the field's."""
    for i in range(30):
        (tmp_path / "pictures" / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "abc"[i % 3] / f"{i}.png")
    given, kept = {"data": str(tmp_path / "pictures"), "size": 8}, str(tmp_path / "kept")
    of = lambda only: run.task(config := configured(only=only, **given)).source(config, "train", kept)
    assert of("c, a").classes == ("c", "a") and of("").classes == tuple("abc")
    assert len(of("c, a")) + len(of("b")) == len(of("")) > len(of("c, a")) > 10
    with pytest.raises(ValueError, match="config.only is 'a,d': names has 'd'"):
        of("a,d")
    assert "config.only is 'a', and squares have no class" in refused(configured("photo", crop=8, only="a"))
    assert "config.only is 'a', and squares have no class" in refused(configured("autoencoder", crop=8, only="a"))
    assert "config.only is 'a', and squares of all" in refused(configured("ctmsr_x4", only="a"))


@pytest.mark.parametrize(
    "told, total",
    [
        ({"images_seen": 100}, 105),
        ({"images_seen": 100, "started_from": "x", "images_seen_in_all": 300}, 305),
        ({"images_seen": 100, "started_from": "x"}, None),
        ({}, None),
    ],
    ids=["first run", "second run", "begun on weights that do not say", "from elsewhere"],
)
def test_pictures_are_counted_over_all_the_runs(tmp_path, told, total):
    path = str(tmp_path / "prior")
    weights.save(path, {"w": np.ones(1, np.float32)}, {"name": "prior", **told})
    assert run.seen_in_all(path, 5) == ({"images_seen_in_all": total} if total else {})
    assert run.seen_in_all("", 5) == {"images_seen_in_all": 5}


def test_the_shipped_priors_say_how_many_pictures_they_saw():
    assert run.seen_in_all("satellite64", 0)["images_seen_in_all"] == 27_520 + 36_800
    assert run.seen_in_all("prior32", 1)["images_seen_in_all"] == 256_001


def test_training_starts_from_weights_of_half_precision_in_float32(tmp_path):
    path, drawn = str(tmp_path / "prior"), {"w": np.asarray([0.1, -3.0], np.float32)}
    weights.save(path, weights.halved(drawn), {"name": "prior"})
    found = run.starting_weights(path, drawn)
    assert found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], drawn["w"].astype(np.float16).astype(np.float32))


def test_losses_that_are_not_finite_are_not_exported(tmp_path):
    class Run:
        config, digest = configured(), "me"

    class State:
        step, skipped, ema = jnp.int32(3), jnp.int32(0), ({"w": np.ones(1, np.float32)},)

    with pytest.raises(ValueError, match=r"held-out loss '0.1' is not finite after 3 steps; nothing is exported"):
        run.export(Run, State, 0, 1.0, {"0.03": 1.0, "0.1": NAN}, pictures(), str(tmp_path))
    assert not list(tmp_path.iterdir())
