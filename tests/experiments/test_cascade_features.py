"""What a network sees in generated pictures, on rows whose numbers are known."""

import numpy as np
import pytest

from experiments.tables import cascade, published
from experiments.tables import cascade_features as features

pytest.importorskip("sklearn")


def blobs(seed, count, apart=6.0, width=4):
    """Rows about three centres, which are a corner of a simplex each, and their numbers."""
    labels = np.arange(count) % 3
    rows = np.random.default_rng(seed).normal(size=(count, width)) + apart * np.eye(3, width)[labels]
    return rows, labels


@pytest.fixture
def real(monkeypatch):
    """Features that are the pictures' own numbers."""
    monkeypatch.setattr(features, "FEATURES", lambda pictures: pictures.reshape(len(pictures), -1))
    return features.known(*blobs(0, 900), *blobs(1, 300))


def test_pictures_of_the_same_law_score_as_training_pictures_do(real):
    found, floor = features.scores(*blobs(2, 300), real), features.floor(real, 300)
    assert len(found) == len(floor) == len(features.HEAD) == len(features.DIGITS)
    fid, kid, precision, recall, density, coverage, own, teaches, score = found
    rows, labels = blobs(2, 900)
    of_one = features.scores(rows[labels == 0], labels[:300], real)[1]
    assert fid == pytest.approx(floor[0], abs=0.2) and max(abs(kid), abs(floor[1])) < 0.1 * of_one
    assert min(precision, recall, coverage) > 0.9 and density == pytest.approx(1, abs=0.1)
    assert min(own, teaches) > 0.99 and 2.8 < score < 3


def test_pictures_of_one_class_alone_are_precise_and_cover_little(real):
    """The score is 1 where every picture is taken for the same, however sure of that the classifier is."""
    rows, labels = blobs(2, 900)
    fid, _, precision, recall, _, coverage, own, teaches, score = features.scores(rows[labels == 0], labels[:300], real)
    assert precision > 0.9 and recall < 0.5 and coverage < 0.5 and fid > 5
    assert own == pytest.approx(1 / 3, abs=0.01) and teaches < 0.5 and score == pytest.approx(1, abs=0.05)


def test_pictures_of_one_label_teach_nothing(real):
    rows, _ = blobs(2, 60)
    *_, own, teaches, _ = features.scores(rows, np.zeros(60, int), real)
    assert own == pytest.approx(1 / 3, abs=0.01) and np.isnan(teaches)


def test_captions_are_too_many_to_tell_apart(monkeypatch):
    monkeypatch.setattr(features, "FEATURES", lambda pictures: pictures)
    rows = np.random.default_rng(0).normal(size=(400, 3))
    known = features.known(rows, np.arange(400), rows[:50], np.arange(50))
    assert known.classifier is None
    found = features.scores(rows[:60], np.arange(60), known)
    assert np.isfinite(found[:6]).all() and np.isnan(found[6:]).all()


def test_at_most_so_many_pictures_are_looked_at(real, monkeypatch):
    monkeypatch.setattr(features, "TAUGHT", 90)
    few = features.known(*blobs(0, 900), *blobs(1, 300))
    assert len(few.trained) == 90 and len(few.held_out) == 300
    assert np.isfinite(features.floor(few, 500)).all()


def test_small_pictures_have_no_second_table():
    assert not features.suited(np.zeros((2, 16, 64, 3))) and features.suited(np.zeros((2, 32, 32, 1)))
    assert cascade.further(None, [], 10) == []


def test_the_second_table_ends_with_training_pictures(real):
    cells = [cascade.cell([value] * 3, places) for value, places in zip(features.floor(real, 300), features.DIGITS)]
    title, text = cascade.further(real, [("", *features.HEAD), ("a row", *cells)], 300)
    head, row, last = text.splitlines()
    assert "EfficientNet-Lite0" in title and head.split("  ")[-1] == "class score"
    assert row.startswith("a row") and last.startswith("training pictures") and len(last.split()) == 2 + 9
    assert published.columns([("", *features.HEAD)]).split() == " ".join(features.HEAD).split()
