"""The adversarial task: texts out of labels, its held-out errors and its alarm, the whole command, and `generate`."""

import json
import sys

import forking
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_command
from compiling import FAST

pytest.importorskip("ml_collections")
pytest.importorskip("grain")

from configs import stackgan_v2_digits
from diffinv import data, weights
from diffinv.data.builders import Resident
from experiments.tasks.adversarial import Adversarial

CLASSES = ("AnnualCrop", "River", "Sea Lake")


@pytest.fixture(autouse=True)
def as_experiments_run():
    """Single precision and the usual promotion, which optax's Adam needs."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def smoke(**changes):
    config = stackgan_v2_digits.get_config("smoke")
    config.update(changes)
    return config


def pictures(classes=CLASSES):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    return data.Source(Resident(images, np.arange(12, dtype=np.int32) % len(classes)), 8, 3, classes, ())


@pytest.fixture(scope="module")
def task():
    return Adversarial(smoke(), pictures())


def test_the_words_of_the_labels_are_the_vocabulary(task):
    assert task.words == ("annual", "crop", "lake", "river", "sea")
    assert task.tokens.tolist() == [[1, 2, 0, 0], [4, 0, 0, 0], [5, 3, 0, 0]]
    assert task.card()["words"] == list(task.words) and task.card()["labels"] == list(CLASSES)
    assert weights.cards.build_game(task.card()["generator"]) == task.game


def test_rare_words_are_left_out():
    found = Adversarial(smoke(least=2), pictures(("red apple", "green apple", "apple")))
    assert found.words == ("apple",) and found.tokens[:, 0].tolist() == [1, 1, 1]


def test_labels_without_a_word_are_refused_and_may_be_played_without_texts():
    with pytest.raises(ValueError, match="hold no word; give --config.captions=True"):
        Adversarial(smoke(), pictures(("", "-")))
    found = Adversarial(smoke(texts=False), pictures(("", "-")))
    assert found.game.reader is None and "words" in found.card() and not found.card()["words"]
    shown = jax.eval_shape(found.sample, jax.random.key(0), jax.eval_shape(found.init, jax.random.key(0)), jnp.zeros(4))
    assert shown.shape == (8, 8, 3)


def test_networks_that_do_not_fit_the_pictures_are_refused():
    config = smoke()
    config.net.branches = 3
    with pytest.raises(ValueError, match="config.net.branches is 3; pictures of 8 pixels leave at most 2"):
        Adversarial.check(config)


def test_the_other_picture_is_of_another_text(task):
    label = jnp.arange(30) % 3
    images = jnp.broadcast_to(label[:, None, None, None].astype(jnp.float32), (30, 8, 8, 3))
    found = task.examples(jax.random.key(0), images, label)
    other = found["other"][:, 0, 0, 0].astype(jnp.int32)
    assert not (other == label).any() and set(other.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(found["tokens"], task.tokens[label])


@pytest.mark.slow
def test_errors_alarm_and_what_is_exported(task):
    """Random networks of small weights paint one grey: the alarm says so by name."""
    params = jax.jit(task.init, compiler_options=FAST)(jax.random.key(0))
    batch = {key: jnp.asarray(value) for key, value in pictures().take(range(12)).items()}
    found = jax.jit(task.errors, compiler_options=FAST)(jax.random.key(1), params, batch)
    assert set(found) == {"energy 4", "energy 8", "colours lost", "text", "real text"}
    assert all(np.isfinite(value) for value in found.values())
    assert 0 <= float(found["text"]) <= 1 and 0 <= float(found["real text"]) <= 1
    assert float(found["energy 8"]) > 0.05  # from grey to noise
    flat = jax.tree.map(lambda leaf: 1e-3 * leaf, params["generator"])
    grey = jax.jit(task.errors, compiler_options=FAST)(jax.random.key(1), {**params, "generator": flat}, batch)
    assert float(grey["colours lost"]) > 0.5 and "mode collapse: generated pictures lost" in task.alarm(grey)
    assert task.alarm({**grey, "colours lost": 0.1}) == ""
    done = jax.jit(task.finished, compiler_options=FAST)(jax.random.key(2), params)
    assert jax.tree.structure(done) == jax.tree.structure(params)
    moved = [not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (done, params)), strict=True)]
    assert sum(moved) == len(jax.tree.leaves(params["statistics"])) > 0


def test_pictures_of_their_own_text_are_not_missed(task):
    """Where the viewer sees what the reader reads: zero weights make all texts equal, and none is nearer."""
    params = jax.jit(task.init, compiler_options=FAST)(jax.random.key(0))
    zero = {**params, "reader": jax.tree.map(jnp.zeros_like, params["reader"])}
    batch = {key: jnp.asarray(value) for key, value in pictures().take(range(12)).items()}
    assert float(jax.jit(task.errors, compiler_options=FAST)(jax.random.key(1), zero, batch)["real text"]) == 0


def command(name, *arguments):
    start = [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]
    return forking.run(start, training_command.environment())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of six steps."""
    folder = tmp_path_factory.mktemp("trained")
    done = command("train", "--config=configs/stackgan_v2_digits.py:smoke", f"--workdir={folder}", "--half")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_command_trains_and_goes_on_from_what_it_exported(trained, tmp_path):
    card = json.loads((trained / "stackgan_digits.json").read_text())
    assert card["steps"] == 6 and card["stored"].startswith("float16") and card["words"] == ["0", "1"]
    assert np.isfinite(list(card["held_out_loss"].values())).all()
    assert data.decode(str(next(trained.glob("samples_*.png")))).shape == (16, 16, 3)
    start = f"--config.start={trained / 'stackgan_digits'}"
    done = command(
        "train", "--config=configs/stackgan_v2_digits.py:smoke", f"--workdir={tmp_path}", start, "--config.steps=1",
        "--config.warmup=1", "--config.cooldown=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "stackgan_digits.json").read_text())
    assert again["images_seen_in_all"] == card["images_seen"] + 8


@pytest.mark.slow
def test_generate_makes_the_same_pictures_of_the_same_seed(trained, tmp_path):
    model = f"--model={trained / 'stackgan_digits'}"
    for folder in ("a", "b"):
        done = command("generate", "0", "1 0", model, "--count=3", f"--out={tmp_path / folder}")
        assert done.returncode == 0, done.stderr
        assert "match" in done.stdout and "ms a picture" in done.stdout
    found = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert [str(path) for path in found if path.suffix == ".png"] == [
        "0.png", "1 0.png", *(f"pictures/{stem}-{i}.png" for stem in ("0", "1 0") for i in range(3))
    ]  # fmt: skip
    for path in found:
        if path.suffix == ".png":
            assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    assert data.decode(str(tmp_path / "a" / "0.png")).shape == (2 * 16, 3 * 16, 3)
    assert (tmp_path / "a" / "0.png").read_bytes() != (tmp_path / "a" / "1 0.png").read_bytes()
    assert "1 0.png" in (tmp_path / "a" / "index.html").read_text()


@pytest.mark.slow
def test_generate_takes_the_model_that_ships(tmp_path):
    done = command("generate", "7", "--count=4", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert data.decode(str(tmp_path / "7.png"), channels=1).shape == (3 * 32, 4 * 32, 1)
    assert "stackgan_digits" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, said",
    [
        (["apple"], "the prompt has the word 'apple', which the model has not read"),
        ([""], "has no word"),
        (["--count=0"], "--count is 0"),
    ],
)
def test_generate_refuses_in_one_line(trained, arguments, said, tmp_path):
    done = command("generate", *arguments, f"--model={trained / 'stackgan_digits'}", f"--out={tmp_path}")
    assert done.returncode and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_judge_judges_a_generator_of_its_texts(trained, tmp_path):
    """Each label by as many draws; flags of samplers are refused."""
    rng = np.random.default_rng(0)
    part = lambda count: rng.integers(0, 100, (count, 8, 8, 3)) + 100 * (np.arange(count) % 2)[:, None, None, None]
    sets = {f"{name}_images": part(count).astype(np.uint8) for name, count in (("train", 16), ("test", 8))}
    labels = {f"{name}_labels": np.arange(count) % 2 for name, count in (("train", 16), ("test", 8))}
    np.savez(tmp_path / "pack.npz", **sets, **labels)
    given = (f"--prior={trained / 'stackgan_digits'}", f"--data={tmp_path / 'pack.npz'}", "--count=8", "--classes")
    done = command("judge", *given, "--card")
    assert done.returncode == 0, done.stderr
    note = json.loads((trained / "stackgan_digits.json").read_text())["sample_quality"]
    assert "8 samples of 1 generator step against 8 held out" in note["name"]
    assert set(note["classes"]["by_label"]) == {"0", "1"} and note["classes"]["held_out_accuracy"] > 0.5
    assert np.isfinite(note["value"]) and note["memorisation"]["training_pictures"] == 16
    refused = command("judge", *given, "--steps=3")
    assert refused.returncode == 1 and "is of a generator, which has none; leave them out" in refused.stderr
