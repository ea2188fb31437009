"""The table of staged generation: its rows are what they say, its scores are right on known pictures, a small run."""

import ast
import functools
from importlib import import_module
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from flax import struct
from scipy import stats

pytest.importorskip("ml_collections")
pytest.importorskip("grain")


from diffinv import generator, schema, weights
from experiments.tables import cascade, published, trainings
from experiments.tables import cascade_stages as stages
from experiments.tasks import fields
from experiments.tasks.table import TASKS


def options(**given):
    return published.values(cascade.OPTIONS, False, **given)


@pytest.fixture(autouse=True)
def as_experiments_run():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_every_row_changes_what_it_says():
    made = {row: cascade.configured(options(), row) for row in cascade.ROWS if row != cascade.ONE}
    plain = made["StackGAN-v2"]
    assert plain.net.alone and plain.colour_weight == 0 and plain.wrong_is_real and plain.slope_weight > 0
    assert made["with colours"].colour_weight == 50 and not made["judges of pairs alone"].net.alone
    assert not made["mismatched pictures not real"].wrong_is_real and made["no weight on slopes"].slope_weight == 0
    assert {config.steps for config in made.values()} == {1000}


def test_one_stage_has_as_many_weights():
    """As near as a whole number of channels can come."""
    one, several = (cascade.configured(options(), row) for row in (cascade.ONE, "StackGAN-v2"))
    assert one.net.branches == 1 and abs(cascade.weighs(one) / cascade.weighs(several) - 1) < 0.1
    far, width = abs(cascade.weighs(one) - cascade.weighs(several)), one.net.features
    for other in (width - 1, width + 1):
        one.net.features = other
        assert abs(cascade.weighs(one) - cascade.weighs(several)) > far


def test_the_flags_of_a_training_are_those_of_the_row():
    config = cascade.configured(options(steps=40), cascade.ONE)
    told = cascade.arguments(config, options(steps=40, data="digits"), cascade.ONE)
    assert told[0] == "--config=configs/stackgan_v2_digits.py"
    assert {"--config.net.branches=1", "--config.steps=40", "--config.cooldown=5", "--config.data=digits"} <= set(told)
    assert f"--config.net.features={config.net.features}" in told


def test_pixels_as_rows_are_at_most_16_wide():
    x = np.arange(2 * 32 * 32 * 3, dtype=float).reshape(2, 32, 32, 3)
    found = cascade.flat(x)
    assert found.shape == (2, 16 * 16 * 3)
    np.testing.assert_allclose(found[0, :3], x[0, :2, :2].mean((0, 1)))
    np.testing.assert_array_equal(cascade.flat(x[:, :8, :8, :1]), x[:, :8, :8, 0].reshape(2, 64))


def test_the_energy_distance_of_sets_of_other_sizes():
    """Of N(0, 1) and N(m, 1) it is `2 E|N(m, 2)| - 2 E|N(0, 2)|`, and 0 of one law."""
    m, law = 1.5, lambda at, n: at + stats.norm.ppf((np.arange(n) + 0.5) / n)[:, None, None, None]
    x, y, same = law(0, 1500), law(m, 1000), law(0, 1000)
    mean = lambda m: 2 / np.sqrt(np.pi) * np.exp(-(m**2) / 4) + m * (1 - 2 * stats.norm.cdf(-m / np.sqrt(2)))
    assert cascade.apart(x, y) == pytest.approx(2 * mean(m) - 2 * mean(0), abs=5e-3)
    assert cascade.apart(x, same) == pytest.approx(0, abs=5e-3)


@pytest.mark.slow
def test_scores_of_a_generator_that_paints_its_text():
    """Grey levels by the text: recognised, teaching, of one colour at all scales; and one that paints white is not."""
    section = {"size": 8, "branches": 2, "features": 2, "width": 2, "blocks": 0, "noise": 2, "judge_features": 1}
    game = generator.game(**section, channels=1, words=2, embedding=2, length=1, viewer_features=1)
    params = jax.jit(lambda key: generator.drawn(key, game), compiler_options=FAST)(jax.random.key(0))

    @struct.dataclass
    class Painter(generator.TextToImage):
        def __call__(self, key, tokens, truncation=1.0):
            level = jnp.where(tokens[0] == 1, -0.5, 0.5) if self.captions == ("a", "b") else jnp.ones(())
            noise = 0.1 * jax.random.normal(key, ())
            return generator.Generated(tuple(jnp.full((side, side, 1), level + noise) for side in (4, 8)), None)

    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    pictures = (labels - 0.5)[:, None, None, None] + 0.1 * rng.normal(size=(40, 8, 8, 1))
    known = cascade.Real(pictures, labels, pictures, labels)
    good, white = (
        cascade.scores(
            cascade.of_texts(Painter(params, game, ("a", "b") if name == "a" else ("x", "y"), captions), 5),
            known,
            40,
            0,
        )
        for name, captions in (("a", ("a", "b")), ("x", ("x", "y")))
    )
    energy, recognised, taught, colours, own, cost = good
    assert recognised == taught == 1 and colours == pytest.approx(0, abs=1e-10) and 0 <= own <= 1 and cost > 0
    assert white[1] == pytest.approx(0.5, abs=0.05) and white[0] > 0.3 > 0.1 > energy


def test_a_cell_has_student_s_interval():
    assert cascade.cell([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"
    assert cascade.cell([float("nan")] * 2, 2) == "-"


def test_a_training_that_fails_says_why(tmp_path, monkeypatch):
    ended = SimpleNamespace(returncode=1, stderr=b"reading\nerror: config.data is 'x'; give another\n")
    monkeypatch.setattr(trainings.subprocess, "run", lambda *command, **more: ended)
    for row, what in (("StackGAN-v2", ""), ("diffusion cascade", "stage4, ")):
        with pytest.raises(ValueError, match=f"'{row}', {what}seed 0 ended with 1: error: config.data is 'x'"):
            cascade.model_of(options(models=str(tmp_path)), row, 0, 10)


def in_place_of_training(started):
    """A run of `experiments.train` that checks its flags as the command does, and exports the weights it draws."""

    def run(command, stderr):
        name, *flags, workdir = command[3:]
        config = import_module(name.split("=")[1].removesuffix(".py").replace("/", ".")).get_config()
        for flag in flags:
            field, value = flag.removeprefix("--config.").split("=")
            kind = type(functools.reduce(getattr, field.split("."), config))
            config.update_from_flattened_dict({field: value if kind is str else kind(ast.literal_eval(value))})
        fields.check(config)
        assert not list(schema.refusals(fields.fields(config), config.to_dict(), "config"))
        task = TASKS[config.task](config, TASKS[config.task].source(config, "train", str(started)))
        card = {**task.card(), "name": config.name, "shape": list(task.shape), "steps": config.steps}
        drawn = jax.jit(task.init, compiler_options=FAST)(jax.random.key(config.seed))
        weights.save(f"{workdir.split('=')[1]}/{config.name}", jax.tree.map(np.asarray, drawn), card)
        (started / f"{len(list(started.glob('*.run')))}.run").touch()
        return SimpleNamespace(returncode=0)

    return run


@pytest.mark.slow
def test_the_table_trains_each_row_with_its_own_flags_and_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings.subprocess, "run", in_place_of_training(tmp_path))
    monkeypatch.setattr(cascade.runtime, "cache_folder", lambda: tmp_path / "xla")
    rows = ["StackGAN-v2", "judges of pairs alone"]
    given = published.values(cascade.OPTIONS, True, models=str(tmp_path / "models"), methods=rows)
    first, again = cascade.main(given), cascade.main(given)
    assert len(list(tmp_path.glob("*.run"))) == 2 * len(rows) and (first.failed, first.whole) == (0, 2 * len(rows))
    lines = {line.split("  ")[0]: line for line in first.text.splitlines()}
    assert set(rows) < set(lines) and "training pictures" in lines and "40 pictures of each model" in first.text
    cells = lambda found: [
        line.rsplit("  ", 1)[0] for line in found.text.splitlines() if line.startswith("StackGAN-v2")
    ]
    assert cells(first) == cells(again)  # but for the time of a picture
    pair, joint = (weights.load_generator(next((tmp_path / "models").glob(f"{name}-0/*.json"))) for name in (
        "judges-of-pairs-alone", "stackgan-v2"))  # fmt: skip
    assert not any(judge.alone for judge in pair.game.judges) and all(judge.alone for judge in joint.game.judges)


def test_a_cascade_s_stages_follow_one_another_and_weigh_what_they_are_compared_with():
    tree = cascade.configured(options(), cascade.FIRST)
    count = cascade.weighs(tree)
    found = stages.as_many("diffusion cascade", tree, count, 10)
    assert [(part.config.size, part.config.coarse) for part in found] == [(4, 0), (8, 4), (16, 8)]
    assert abs(stages.weighs(found) / count - 1) < 0.1 and {part.config.steps for part in found} == {tree.steps}
    assert [part.config.size for part in stages.as_many("one diffusion stage", tree, count, 10)] == [16]
    tuned = stages.as_many("one-step stages", tree, count, 10)
    assert [part.start for part in tuned] == found and {part.config.options.ect.every for part in tuned} == {250}
    relays = stages.as_many("relay", tree, count, 10)
    assert [(part.file, part.config.coarse) for part in relays] == [("cascade_digits", 0)] + [("relay_digits", 0)] * 2
    for part in [*found, *tuned]:
        task = TASKS[part.config.task]
        fields.check(part.config)
        assert part.config.classes == 10 and part.config.batch == tree.batch and not part.config.flip
        made = task(part.config, SimpleNamespace(classes=list("0123456789")))
        assert made.architecture == stages.architecture(part.config)
        told = trainings.flags(part.file, part.changes)
        assert told[0] == f"--config=configs/{part.file}.py" and f"--config.coarse={part.config.coarse}" in told


@pytest.mark.parametrize("row", stages.ROWS)
@pytest.mark.parametrize("count", [20_000, 400_000])
def test_no_other_widths_are_nearer(row, count):
    """Of stages of one width, whose norms divide them."""
    tree = cascade.configured(options(), cascade.FIRST)
    far = abs(stages.weighs(stages.as_many(row, tree, count, 10)) - count)
    for width in filter(stages.divided, range(4, 64, 2)):
        same = stages.parts(row, tree, [width] * 3, 10)
        assert abs(stages.weighs(same) - count) >= far


def test_captions_are_no_classes():
    with pytest.raises(ValueError, match="--methods has 'diffusion cascade', which takes classes, and emoji have"):
        cascade.rows_of(options(config="emoji"))
    assert cascade.rows_of(options(config="emoji", methods=["one stage"])) == ["one stage"]


def test_one_step_stages_go_on_from_those_of_the_diffusion_cascade(monkeypatch):
    asked = []
    seen = lambda what, folder, name, given, same: asked.append((str(folder), given)) or str(folder / name)
    monkeypatch.setattr(trainings, "export", seen)
    tree = cascade.configured(options(), cascade.FIRST)
    stage = stages.as_many("one-step stages", tree, 50_000, 10)[1]
    assert stages.export("m", "one-step stages", 1, stage) == "m/one-step-stages-1/stage8/stage8"
    (first, told), (second, tuned) = asked
    assert (first, second) == ("m/diffusion-cascade-1/stage8", "m/one-step-stages-1/stage8")
    assert "--config.start=m/diffusion-cascade-1/stage8/stage8" in tuned and not any("start=" in flag for flag in told)
    assert "--config.seed=1" in told and "--config.seed=1" in tuned


@pytest.mark.slow
@pytest.mark.parametrize("row", ["relay", "one-step stages"])
def test_each_kind_of_stage_hands_its_picture_on(row):
    """Drawn weights: a relay's result has the coarse picture's means but for its noise, and all are of rising size."""
    tree = cascade.configured(options(), cascade.FIRST)
    source = SimpleNamespace(classes=list("0123456789"))
    priors = []
    for part in stages.parts(row, tree, [4, 4, 4], 10):
        task = TASKS[part.config.task].__new__(TASKS[part.config.task])
        if part.config.task == "spectral":
            task._field = lambda source, size=part.config.size: {
                "mean": np.zeros((size, size, 1), np.float32),
                "variance": np.full((size, size, 1), 0.5, np.float32),
            }
        task.__init__(part.config, source)
        card = {**task.card(), "name": "x", "shape": list(task.shape)}
        drawn = jax.jit(task.init, compiler_options=FAST)(jax.random.key(0))
        priors.append(weights.build(drawn, card))
    made = jax.jit(stages.cascaded(row), compiler_options=FAST)(
        (tuple(priors), jnp.float32(0.0)), jax.random.key(0), jnp.int32(3)
    )
    assert [picture.shape for picture in made] == [(4, 4, 1), (8, 8, 1), (16, 16, 1)]
    assert all(np.isfinite(picture).all() for picture in made)
    if row == "relay":
        means = made[2].reshape(8, 2, 8, 2).mean((1, 3))
        assert np.corrcoef(means.ravel(), np.ravel(made[1]))[0, 1] > 0.5


@pytest.mark.slow
def test_a_cascade_s_stages_are_trained_once_and_drawn_together(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings.subprocess, "run", in_place_of_training(tmp_path))
    monkeypatch.setattr(cascade.runtime, "cache_folder", lambda: tmp_path / "xla")
    monkeypatch.setattr(stages, "HEUN", 3)
    given = published.values(cascade.OPTIONS, True, models=str(tmp_path / "models"), methods=["diffusion cascade"])
    first, again = cascade.main(given), cascade.main(given)
    assert len(list(tmp_path.glob("*.run"))) == 2 * 3 and (first.failed, first.whole) == (0, 2)
    line = next(line for line in first.text.splitlines() if line.startswith("diffusion cascade"))
    assert line.rsplit("  ", 1)[0] in again.text
    tree = cascade.configured(given, cascade.FIRST)
    kept = stages.trained(given.models, "diffusion cascade", 0, stages.as_many("diffusion cascade", tree, 22_958, 10))
    assert f"{sum(leaf.size for prior in kept for leaf in jax.tree.leaves(prior.denoise.params)):,}" in line
    made = stages.cascaded("diffusion cascade")((kept, jnp.float32(0.1)), jax.random.key(0), jnp.int32(3))
    assert [picture.shape for picture in made] == [(4, 4, 1), (8, 8, 1), (16, 16, 1)]
    assert len(list(tmp_path.glob("*.run"))) == 6
