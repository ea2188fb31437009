"""Exported stages as one cascade: what they are refused for, what they draw, and the commands that draw from them."""

import itertools
import sys

import forking
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_command
from compiling import FAST
from PIL import Image

import diffinv as di
from diffinv import samplers, times, weights
from diffinv.cascade import CascadeStage, cascade, sampling, with_noise
from diffinv.nn import unet
from experiments.common import stages

FIELDS = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 8, "patch": 2}
LABELS = ["field", "sea"]
KEY = jax.random.key(0)


def save(path, side, coarse=0, classes=2, **more):
    """An export with drawn weights, (side, side, 3), told of a label and, from `coarse` pixels, of a picture."""
    fields = {**FIELDS, "out_channels": 3, "classes": classes + 1 if classes else None}
    fields |= {"low_channels": 3} if coarse else {}
    net = unet.UNet(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})
    shape = (side, side, 3)
    told = {"label": jnp.int32(0)} if classes else {}
    told |= {"low": jnp.zeros(shape), "level": jnp.zeros(())} if coarse else {}
    make = jax.jit(lambda key: net.init(key, jnp.zeros(shape), jnp.zeros(()), **told), compiler_options=FAST)
    drawn = jax.tree.map(
        lambda a: np.asarray(a) + 0.02 * np.random.default_rng(side).standard_normal(a.shape), make(KEY)
    )
    card = {
        "name": path.name,
        "architecture": {"name": "unet", **fields},
        "parametrisation": {"parametrisation": "edm", "sigma_data": 0.5},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "shape": list(shape),
        **({"labels": LABELS[:classes], "label_null": classes, "given": {"label": classes}} if classes else {}),
        **({"coarse": {"side": coarse, "level": 1.0}} if coarse else {}),
        **more,
    }
    weights.save(str(path), jax.tree.map(lambda a: a.astype(np.float32), drawn), card)
    return str(path)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Stages of 4 and of 8 pixels."""
    folder = tmp_path_factory.mktemp("stages")
    return [save(folder / "small", 4), save(folder / "large", 8, coarse=4)]


def command(name, *arguments):
    return forking.run([sys.executable, "-m", f"experiments.{name}", *arguments], training_command.environment())


@pytest.fixture(autouse=True)
def as_commands_are():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_they_draw_what_the_cascade_of_guided_priors_draws(two):
    """Written out: classifier-free guidance of both stages, and noise on what the second is told of.

    In single precision, from noise of 80, by another program: a rounding at the start is 5e-6.
    """
    found, weight, label = stages.loaded(two, "--model"), 3.0, jnp.int32(1)
    assert [prior.shape for prior in found.priors] == [(4, 4, 3), (8, 8, 3)] and found.labels == LABELS
    drawn = jax.jit(stages.drawing(found.cards, 4))(found.priors, 0.3, weight, KEY, label)

    def guided(prior):
        return samplers.heun(di.posterior.cfg(prior.given(label=label), prior.given(label=jnp.int32(2)), weight))

    made = [sampling(prior, guided, times.karras(4)) for prior in found.priors]
    written = cascade([CascadeStage(made[0], (4, 4, 3)), CascadeStage(made[1], (8, 8, 3), with_noise, 0.3)])
    for a, b in zip(drawn, jax.jit(lambda key: written(key, None).info.pictures)(KEY), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    other = jax.jit(stages.drawing(found.cards, 4))(found.priors, 0.3, weight, KEY, jnp.int32(0))
    assert np.abs(drawn[1] - other[1]).max() > 1e-3


def test_without_a_label_each_is_told_the_one_of_nothing(two):
    found = stages.loaded(two[:1], "--model")
    drawn = jax.jit(stages.drawing(found.cards, 3))(found.priors, 0.0, 2.0, KEY, None)
    nothing = found.priors[0].given(label=jnp.int32(2))
    key = jax.random.split(jax.random.split(KEY, 1)[0])[1]
    plain = jax.jit(lambda key: di.sample(key, samplers.heun(nothing), times.karras(3)).x)(key)
    np.testing.assert_allclose(drawn[0], plain, atol=2e-5)


def test_a_consistency_model_takes_one_step(two, tmp_path):
    once = save(tmp_path / "once", 8, coarse=4, consistency={"name": "ect", "second_time": False, "middle": 0.5})
    found = stages.loaded([two[0], once], "--model")
    solver = lambda key: stages.maker(found.priors[1], found.cards[1], jnp.int32(0), 2.0, 18)(
        key, None, jnp.zeros((4, 4, 3)), jnp.float32(0.1)
    )
    solution = jax.jit(solver)(KEY)
    assert int(solution.info.nfe.sum()) == 1 and solution.x.shape == (8, 8, 3)


def test_stages_that_do_not_fit_are_refused_by_name(two, tmp_path):
    small, large = two
    plain, alone = save(tmp_path / "plain", 8), save(tmp_path / "alone", 8, coarse=4, classes=0)
    refused = {
        (large,): r"--model starts with .*large', which is told of 4 x 4; put its stage before it",
        (small, plain): r"--model has .*plain', which is told of no coarse picture, after one of 4 x 4 x 3",
        (plain, large): r"--model has .*large', which is told of 4 x 4 x 3, after one of 8 x 8 x 3",
        (small, alone): r"--model has .*small', whose labels are not those of .*alone'; give others",
    }
    for paths, words in refused.items():
        with pytest.raises(ValueError, match=words):
            stages.loaded(paths, "--model")
    with pytest.raises(FileNotFoundError, match="no file .*nowhere.json"):
        stages.loaded([small, str(tmp_path / "nowhere")], "--model")


def test_paths_are_parted_by_commas_but_for_a_name_that_has_one(two, tmp_path):
    assert stages.split(f"{two[0]}, {two[1]}") == two and stages.split("satellite64")[0].endswith("shipped/satellite64")
    odd = save(tmp_path / "a,b", 4)
    assert stages.split(odd) == [odd] and stages.loaded([odd], "--model").labels == LABELS


@pytest.mark.slow
def test_generate_draws_labels_by_stages(two, tmp_path):
    """A column a draw, all stages one above the other; whatever a label's case, in the prompts' order."""
    model, out = f"--model={','.join(two)}", f"--out={tmp_path}"
    done = command("generate", "SEA", "field", model, "--count=3", "--steps=3", out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(
        f"{name}-{i}.png" for name in ("SEA", "field") for i in range(3)
    )
    with Image.open(tmp_path / "SEA.png") as sheet:
        assert sheet.size == (3 * 16, 2 * 16)
    for arguments, words in {
        ("see",): "the prompt 'see' is no label of .*: did you mean 'sea'? known are field, sea",
        ("--truncation=0.5",): "--truncation is given, but --model is of priors, which have none; leave it out",
    }.items():
        done = command("generate", *arguments, model, out)
        assert done.returncode == 1 and words.split(".*")[-1] in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_judge_counts_what_stages_draw_of_their_labels(two, tmp_path):
    """The two classes differ in brightness alone, so that the classifier knows them, whatever the stages draw."""
    for split, name in itertools.product(("train", "test"), LABELS):
        (tmp_path / "data" / split / name).mkdir(parents=True)
        for i in range(8):
            grey = 60 + 140 * LABELS.index(name)
            pixels = np.random.default_rng(i).integers(grey - 20, grey + 20, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    given = [f"--data={tmp_path / 'data'}", f"--prior={','.join(two)}", "--count=8", "--steps=2", "--classes", "--card"]
    done = command("judge", *given)
    assert done.returncode == 0, done.stderr
    quality = weights.read_card(two[1])["sample_quality"]
    assert quality["classes"]["held_out_accuracy"] == 1 and set(quality["classes"]["by_label"]) == set(LABELS)
    assert quality["classes"]["guidance"] == 2 and "Heun by stages" in done.stdout
    done = command("judge", *given, "--sampler=heun")
    assert done.returncode == 1 and "--sampler is given, but --prior is of stages" in done.stderr
