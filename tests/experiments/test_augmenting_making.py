"""What is made of a split: from which pictures, under which labels, past which filters, and without the test."""

from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxwrite
import pytest

from configs import augment_few_shot, augment_folder
from diffinv import augmentation, schema, seed_key
from diffinv.augmentation import recipes
from diffinv.metrics import distribution, embeddings
from experiments.augmenting import bench, fields, making, page, pool, quality, teaching
from experiments.augmenting.baselines import baselines
from experiments.augmenting.labelled import labelled, take
from experiments.augmenting.splits import few_shot
from experiments.evaluation import embedders

pytest.importorskip("sklearn", reason="the judges of augmentation come with scikit-learn")
NAMES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def promoted():
    """optax's own arithmetic mixes types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def data(count=20):
    """Four classes of 3 x 3 pictures, each about its own mean."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), count)
    means = np.linspace(-0.6, 0.6, 4)[labels]
    images = np.clip(means[:, None, None, None] + 0.2 * rng.normal(size=(4 * count, 3, 3, 1)), -1, 1)
    return labelled(images.astype(np.float32), labels)


@pytest.fixture
def split():
    return few_shot(data(), 0, (1, 3), 4, 0.4, 0.2)


def config(**changes):
    found = augment_few_shot.get_config("smoke")
    found.update(size=3, count=6, **changes)
    return found


def test_pictures_start_from_the_few_each_as_often(split):
    plan = recipes.sdedit(1.0)
    labels, places = making.starts(np.random.default_rng(0), plan, split, 8)
    np.testing.assert_array_equal(labels, [1] * 8 + [3] * 8)
    assert (split.train.labels[places[:, 0]] == labels).all() and (split.train.labels[places[:, 1]] == labels).all()
    assert (places[:, 0] != places[:, 1]).all()
    assert set(np.unique(places[:, 0], return_counts=True)[1]) == {2}
    foreign = making.starts(np.random.default_rng(0), recipes.diff_mix(1.0), split, 8)[1][:, 0]
    assert not np.isin(split.train.labels[foreign], split.rare).any()


def test_the_rare_classes_are_last_in_every_split():
    for rare in ((1, 3), (0, 1), (2, 3)):
        told = teaching.rare_last(few_shot(data(), 0, rare, 4), 4)
        assert sorted(told) == [0, 1, 2, 3] and set(told[list(rare)]) == {2, 3}


def test_convolutions_of_a_prior_that_is_trained_here_are_those_for_scans():
    """lax's own fall off XLA's fast path there: twelve times the time of a step on a CPU."""
    assert not teaching.network(augment_folder.get_config(), 4).plain_conv


@pytest.fixture(scope="module")
def drawn():
    """Pictures by every method, and the bench."""
    with jax.numpy_dtype_promotion("standard"):
        methods = "SDEdit,words,Diff-II,Diff-Mix,class sampling,SDEdit without words"
        chosen = config(methods=methods, sigmas=(0.5,), judges="logistic regression,RBF-SVM")
        shared = bench.bench(chosen, teaching.teacher(chosen, NAMES), Path())
        part = few_shot(data(), 0, (1, 3), 4, 0.4, 0.2)
        return shared, part, bench.draw(shared, part, 0)


def test_nothing_that_is_made_kept_or_chosen_has_seen_the_test(drawn):
    """The same pictures, bit for bit, where the test's are noise; and their sources are training pictures."""
    shared, split, found = drawn
    noise = np.random.default_rng(1).uniform(-1, 1, split.test.images.shape).astype(np.float32)
    blind = split._replace(test=split.test._replace(images=noise, labels=split.test.labels[::-1]))
    again = bench.draw(shared, blind, 0)
    for name, made in found.made.items():
        np.testing.assert_array_equal(again.made[name].images, made.images)
        np.testing.assert_array_equal(again.kept[name].mask, found.kept[name].mask)
        real = made.sources[made.sources >= 0]
        assert set(real) <= set(split.train.ids) and not set(real) & set(split.test.ids)
    strengths = {"0.5": found.made["SDEdit", "sigma 0.5"], "other": found.made["words", ""]}
    scores = {}
    for part in (split, blind):
        variants = {
            name: bench.scores(shared.config, part, making.used(recipes.sdedit(1.0), part, made, made.labels >= 0), 0)
            for name, made in strengths.items()
        }
        record = {"arms": {"SDEdit": variants}}
        scores[part is split] = bench.chosen(record, "SDEdit", "RBF-SVM"), variants["0.5"]["validation"]
    assert scores[True] == scores[False]


def test_every_method_makes_as_many_as_asked_in_range(drawn):
    _, split, found = drawn
    for (method, _), made in found.made.items():
        assert made.images.shape == (12, 3, 3, 1) and np.abs(made.images).max() <= 1, method
        np.testing.assert_array_equal(made.labels, [1] * 6 + [3] * 6)
        assert np.isfinite(made.images).all() and ((made.confidence >= 0) & (made.confidence <= 1)).all()
        assert (made.sources[:, 0] >= 0).all() == (method not in ("words", "class sampling")), method
        assert (made.sources[:, 1] >= 0).all() == (method == "Diff-II"), method
    assert {"prior", "fine-tuning, embeddings", "fine-tuning, all_weights", "making, SDEdit"} <= set(found.seconds)


def test_a_seed_makes_the_same_pictures_again(drawn):
    shared, split, found = drawn
    again = bench.draw(shared._replace(methods={"SDEdit": shared.methods["SDEdit"]}), split, 0)
    np.testing.assert_array_equal(again.made["SDEdit", "sigma 0.5"].images, found.made["SDEdit", "sigma 0.5"].images)
    other = bench.draw(shared._replace(methods={"SDEdit": shared.methods["SDEdit"]}), split, 1)
    assert (other.made["SDEdit", "sigma 0.5"].images != found.made["SDEdit", "sigma 0.5"].images).any()


def test_the_generator_gives_any_number_by_one_program(drawn):
    shared, split, _ = drawn
    prior = shared.teacher.prior(seed_key(0), split)
    recipe = recipes.sdedit(0.5, steps=3).recipes[0]
    images = split.train.images[:5]
    given = (making.judge(split), np.zeros(5, np.int32), images, images, np.zeros(5, np.int32))
    whole = making.generator(4)(seed_key(3), prior, recipe, *given)
    assert whole.shape == images.shape
    np.testing.assert_array_equal(making.generator(5)(seed_key(3), prior, recipe, *given), whole)


def test_pictures_made_on_several_devices_are_those_of_one(drawn):
    shared, split, _ = drawn
    assert jax.device_count() > 1
    prior, recipe = shared.teacher.prior(seed_key(0), split), recipes.sdedit(0.5, steps=3).recipes[0]
    images, labels = split.train.images[:5], np.zeros(5, np.int32)
    made = making.generator(2)(seed_key(3), prior, recipe, making.judge(split), labels, images, images, labels)
    for key, image, found in zip(jax.random.split(seed_key(3), 5), images, made, strict=True):
        alone = augmentation.generate(key, prior, recipe, augmentation.Example(jnp.int32(0), jnp.asarray(image))).x
        np.testing.assert_allclose(found, jnp.clip(alone, -1, 1), atol=1e-5)


def test_foreign_pictures_weigh_half_for_either_class(drawn):
    _, split, found = drawn
    plan, made = recipes.diff_mix(0.5), found.made["Diff-Mix", "sigma 0.5"]
    mask = np.arange(12) < 5
    training = making.used(plan, split, made, mask)
    count = len(split.train.labels)
    np.testing.assert_array_equal(training.weights, [1.0] * count + [0.5] * 10)
    np.testing.assert_array_equal(training.labels[count : count + 5], made.labels[:5])
    assert not np.isin(training.labels[count + 5 :], split.rare).any()
    np.testing.assert_array_equal(training.images[count : count + 5], training.images[count + 5 :])


def test_made_pictures_stand_beside_half_of_a_baselines(drawn):
    """6 of each class by the method alone; 3 of each, and 3 moved ones, where they share."""
    shared, split, found = drawn
    plan, named, count = shared.methods["SDEdit"]["sigma 0.5"], ("SDEdit", "sigma 0.5"), len(split.train.labels)
    both = shared._replace(config=config(beside="none,shift,mixup"))
    alone, shifted, mixed = (each for _, each in bench.utilised(both, split, found, named, plan, 0))
    every, made = np.ones(12, bool), found.made[named]
    for got, wanted in zip(alone, making.used(plan, split, made, every), strict=True):
        np.testing.assert_array_equal(got, wanted)
    arm = baselines(1)["shift"](np.random.default_rng([0, 4]), split, 3)
    assert len(arm.labels) == count + 6 and len(shifted.labels) == count + 12 == len(alone.labels)
    np.testing.assert_array_equal(shifted.images[: count + 6], arm.images)
    np.testing.assert_array_equal(shifted.images[count + 6 :], made.images[::2])
    np.testing.assert_array_equal(shifted.labels[count + 6 :], [1] * 3 + [3] * 3)
    assert mixed.weights.sum() == pytest.approx(count + 12) and len(mixed.labels) == count + 18
    assert bench.variant("sigma 0.5", "none") == "sigma 0.5" and bench.alone("beside shift") == ""
    assert bench.alone(bench.variant("sigma 0.5", "shift and flip")) == "sigma 0.5"


@pytest.mark.parametrize("mode", ["", "smoke"])
@pytest.mark.parametrize("name", ["few_shot", "folder", "eurosat", "brain", "fashion"])
def test_every_shipped_configuration_is_accepted(name, mode):
    found = import_module(f"configs.augment_{name}").get_config(mode)
    found.data = found.data or "pictures"
    assert list(schema.refusals(fields.fields(found), found.to_dict(), "config")) == []
    fields.check(found)


def test_a_companion_that_is_not_there_is_named():
    fields.check(config(beside="none,shift,SMOTE"))
    with pytest.raises(ValueError, match="config.beside has 'flip'; config.shift, config.flip and config.turn leave"):
        fields.check(config(beside="none,flip"))


def test_filters_take_copies_and_the_unlikely_and_say_so(split):
    few = split.train.images[np.isin(split.train.labels, split.rare)]
    labels = split.train.labels[np.isin(split.train.labels, split.rare)]
    none = np.full((len(labels), 2), -1)
    distance = np.array([0.0, 9.0] * (len(labels) // 2))
    made = making.Made(few, labels, none, labels * 0, np.linspace(0, 1, len(labels)), distance)
    kept = making.kept(config(confidence=(0.3, 1.0), copies=0.1), split, made, "it")
    np.testing.assert_array_equal(kept.mask, (made.confidence >= 0.3) & (distance > 0))
    assert sum(kept.taken.values()) == (~kept.mask).sum()
    with pytest.raises(ValueError, match="it: nothing is left of 8 made pictures: the classifier's confidence took 7"):
        making.kept(config(confidence=(1.0, 1.0), copies=0.1), split, made._replace(distance=0 * distance), "it")
    floor = making.floor(split, 0.5)
    own = split.train.images[split.train.labels == 0].reshape(-1, 9)
    near = [np.sort(np.linalg.norm(own - row, axis=1))[1] for row in own]
    other = split.train.images[split.train.labels == 2].reshape(-1, 9)
    near += [np.sort(np.linalg.norm(other - row, axis=1))[1] for row in other]
    np.testing.assert_allclose(floor, np.quantile(near, 0.5), rtol=1e-6)
    assert making.floor(split, 0.0) == 0


def test_what_is_left_of_labels_is_told_beside_that_of_real_pictures(split):
    """Means 0.4 apart with a spread of 0.2 over nine pixels: real ones are recognised; of changed labels none."""
    few = np.isin(split.train.labels, split.rare)
    images, labels = np.repeat(split.train.images[few], 5, 0), np.repeat(split.train.labels[few], 5)
    given = lambda labels: making.Made(
        images, labels, np.full((len(labels), 2), -1), labels * 0, labels * 0.5, labels * 0.0
    )
    right, real = quality.recognised(split, given(labels)).values()
    assert right > 0.9 and real > 0.9
    changed = np.where(np.arange(len(labels)) % 2, 4 - labels, labels)  # 1 and 3 are the rare ones
    wrong, same = quality.recognised(split, given(changed)).values()
    assert wrong == pytest.approx(right / 2, abs=0.05) and same == real
    none = split._replace(test=take(split.test, np.zeros(len(split.test.labels), bool)))
    assert np.isnan(quality.recognised(none._replace(validation=none.test), given(labels))["recognised"])


def test_copies_are_told_by_their_ratio(split, drawn):
    few = np.isin(split.train.labels, split.rare)
    images, labels = np.repeat(split.train.images[few], 2, 0), np.repeat(split.train.labels[few], 2)
    made = making.Made(images, labels, np.full((len(labels), 2), -1), labels * 0, labels * 0.5, labels * 0.0)
    told = quality.of(split, made)
    assert told["copies"] == 0 and told["Frechet distance"] > 0
    honest = quality.of(drawn[1], drawn[2].made["SDEdit", "sigma 0.5"])
    assert honest["copies"] > 0.2
    thin = quality.of(few_shot(data(6), 0, (1, 3), 4, 0.01, 0.0), made)
    assert thin["copies"] > 0 and np.isnan(thin["precision"]) and np.isnan(thin["its floor"])
    records = [{"quality": {"it": told, "other": honest}}]
    page_part = page.compared(records, 3)
    assert "it: the pictures lie much nearer to training" in page_part and "other: the pictures" not in page_part
    assert "±" not in page_part  # of one seed
    more = page.means([*records, {"quality": {"it": {**told, "KID": told["KID"] + 2}, "other": honest}}], "quality")
    mean, half = more["it"]["KID"]
    assert mean == pytest.approx(told["KID"] + 1) and half == pytest.approx(12.706, rel=1e-4)  # t of one degree
    assert page.spread((0.5, 0.125), ".3g") == "0.5 ± 0.125" and page.spread((0.5, np.nan), ".3f") == "0.500"


def test_distances_of_a_given_network_are_those_of_its_features(split, tmp_path):
    """By hand from 8 bits, a grey picture as three equal channels; of two pictures there are none."""
    file = tmp_path / "inception.onnx"
    file.write_bytes(onnxwrite.embedder(2048, (1, 3, 12, 12)))
    chosen = config(inception=str(file))
    fields.check(chosen)
    given = embedders.embedders(chosen)
    images, labels = split.train.images[:6], split.train.labels[:6]
    made = making.Made(images, labels, np.full((6, 2), -1), labels * 0, labels * 0.5, labels * 0.0)
    told = quality.of(split, made, given, tmp_path / "features")
    network = embeddings.known_network("inception_v3", file)
    eight = lambda x: (np.round((np.float64(x) + 1) * 127.5) / 127.5 - 1).astype(np.float32)
    rows = [np.stack([network(x) for x in eight(part)]) for part in (images, quality.unseen(split).images)]
    assert told["Inception-FID"] == pytest.approx(distribution.feature_fid(*rows), rel=2e-4)
    assert told["Inception-KID"] == pytest.approx(distribution.feature_kid(*rows).value, rel=2e-4, abs=1e-5)
    assert len(list((tmp_path / "features").iterdir())) == 2
    few = quality.by_given(images[:2], images, given, tmp_path / "features")
    assert set(few) == set(told) - set(quality.of(split, made)) and np.isnan(list(few.values())).all()
    records = [{"quality": {"it": told}}]
    shown = page.compared(records, 3, embedders.notes(embedders.accounts(given), "the unseen real ones"))
    assert "Inception-FID" in shown and "inception.onnx (sha256 " in shown and "against the unseen real ones" in shown


def test_a_sheet_says_how_many_it_shows():
    assert [page.some(count) for count in (0, 64, 65)] == ["all 0", "all 64", "64 at random of 65"]
    assert "<p>none</p>" in page.sheet(np.zeros((0, 3, 3, 1)), "a", "b")
    assert "data:image/png" in page.sheet(np.zeros((70, 3, 3, 1)), "a", "b")


def test_names_of_rare_classes():
    chosen = config(names="c, a")
    counts = np.array([9, 2, 9, 4])
    assert pool.rare_classes(chosen, NAMES, counts) == (0, 2)
    assert pool.rare_classes(config(), NAMES, counts) == 3
    assert pool.rare_classes(config(), NAMES, counts, ("a", "b", "c")) == (3,)
    assert pool.rare_classes(config(shots=0), NAMES, counts) == (1, 3)
    with pytest.raises(ValueError, match="all classes have as many pictures"):
        pool.rare_classes(config(shots=0), NAMES, np.full(4, 5))


def test_a_cap_keeps_the_same_few_of_each_class():
    found = pool.capped(data(), 7)
    np.testing.assert_array_equal(np.bincount(found.labels), [7] * 4)
    np.testing.assert_array_equal(found.ids, pool.capped(data(), 7).ids)
    assert pool.capped(data(), 0).labels.size == 80
    assert set(pool.capped(data(), 3).ids) <= set(found.ids)


def test_the_held_out_part_is_the_test_and_nothing_else():
    held = labelled(np.zeros((6, 3, 3, 1)), np.repeat(np.arange(3), 2), 1000 + np.arange(6))
    found = few_shot(data(), 0, 2, 4, held, 0.2)
    assert found.test is held
    with pytest.raises(ValueError, match="test has pictures of the pool"):
        few_shot(data(), 0, 2, 4, held._replace(ids=np.arange(6)), 0.2)
    every = few_shot(data(), 0, 2, None, None, 0.2)
    assert len(every.test.labels) == 0 and len(every.train.labels) + len(every.validation.labels) == 80


def test_verdicts_are_read_against_oversampling_and_the_best_baseline():
    score = lambda test, validation: {
        part: {"judge": dict.fromkeys(("balanced accuracy", "rare recall", "macro-F1"), value)}
        for part, value in (("test", test), ("validation", validation))
    }
    records = [
        {
            "pictures": {"train": 100, "test": 50},
            "arms": {
                "none": {"": score(0.5, 0.5)},
                "oversampling": {"": score(0.6 + 0.001 * i, 0.6)},
                "mixup": {"": score(0.65, 0.7)},
                "it": {"low": score(0.9, 0.1), "high": score(0.7 + 0.002 * i, 0.8)},
            },
        }
        for i in range(3)
    ]
    assert bench.chosen(records[0], "it", "judge") == "high"
    first, second = page.verdicts(records, ["it"])
    assert first.startswith("judge: it gains over oversampling (+10.1") and "mixup (the best baseline" in second
    assert page.settled(records, "judge", "it") == "high"
    told = page.over_each(records, "judge", ["it"], True)
    assert "it, chosen on each split" in told and "it high, chosen on all" in told and "<th class=n>mixup" in told
    assert told.count("+10.1 ± 0.2") == 2 and "chosen on all" not in page.over_each(records, "judge", ["it"], False)
    records[0]["arms"]["it"]["low"]["validation"]["judge"]["balanced accuracy"] = 3.0
    assert page.settled(records, "judge", "it") == "low"
    assert "+29.9 ± 0.2" in page.over_each(records, "judge", ["it"], True)
    records[0]["arms"]["it"]["low"]["validation"]["judge"]["balanced accuracy"] = 0.1
    rows = {row.arm: row for row in page.table(records, "judge")}
    assert rows["it"].strengths == "high (3)" and rows["none"].gain.mean < 0
    assert "it low" in page.tried(records, ["it"])
