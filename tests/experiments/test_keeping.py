"""What is kept of an earlier start: by content, and named where it is no longer what it was."""

import json

import numpy as np
import pytest

from experiments import report
from experiments.common import keeping

SETTINGS = {"sigma_y": 0.05, "dps": {"zeta": 1.0}, "made_by": {"prior": "a1", "diffinv": "b2", "jax": "0.4"}}
PIXELS = np.linspace(-1, 1, 3 * 4 * 4 * 3, dtype=np.float32).reshape(3, 4, 4, 3)
NAMES = ["a", "b", "c"]


def image(level=7):
    return np.full((4, 4, 3), level, np.uint8)


def finish(folder, settings=SETTINGS, pixels=PIXELS):
    """A run of one task over three pictures."""
    for name, stamp in zip(NAMES, keeping.stamps(settings, pixels), strict=True):
        methods = {"DPS": {"image": image(), "psnr": 20.0, "first_bad_step": -1}}
        record = {"picture": name, "task": "box", "truth": image(), "measurement": image(), "methods": methods}
        report.append(folder, {**record, "stamp": stamp}, "title", "command", settings)


def kept(folder, settings=SETTINGS, pixels=PIXELS):
    stamps = keeping.stamps(settings, pixels)
    done, notes = keeping.kept(folder, settings, {("box", n): s for n, s in zip(NAMES, stamps, strict=True)})
    return sorted(name for _, name in done), notes


def test_the_same_run_keeps_everything(tmp_path):
    assert kept(tmp_path) == ([], [])
    finish(tmp_path)
    assert kept(tmp_path) == (NAMES, [])


def test_a_picture_replaced_at_its_path_is_restored_again(tmp_path):
    finish(tmp_path)
    other = PIXELS.copy()
    other[1, 0, 0, 0] += 0.01
    found, notes = kept(tmp_path, pixels=other)
    assert found == ["a", "c"] and notes == ["b: not the picture that it was; restored again"]


def test_a_picture_at_another_place_draws_another_noise(tmp_path):
    finish(tmp_path)
    assert kept(tmp_path, pixels=np.roll(PIXELS, 1, 0))[0] == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sigma_y", 0.1, "sigma_y = 0.05, not 0.1"),
        ("dps", {"zeta": 2.0}, "dps.zeta = 1.0, not 2.0"),
        ("made_by", {**SETTINGS["made_by"], "prior": "a2"}, "another prior (then a1, now a2)"),
        ("made_by", {**SETTINGS["made_by"], "diffinv": "b3"}, "another diffinv (then b2, now b3)"),
        ("made_by", {**SETTINGS["made_by"], "jax": "0.5"}, "another jax (then 0.4, now 0.5)"),
        ("new", 1, "new = null, not 1"),
    ],
)
def test_other_settings_weights_or_code_are_refused_by_name(tmp_path, field, value, words):
    finish(tmp_path)
    with pytest.raises(ValueError) as error:
        kept(tmp_path, {**SETTINGS, field: value})
    assert words in str(error.value) and "--config.name" in str(error.value) and "--fresh" in str(error.value)


def test_records_of_other_settings_never_pass_for_these(tmp_path):
    """A fresh run that was stopped leaves its head above the records of the run before."""
    finish(tmp_path)
    other = {**SETTINGS, "sigma_y": 0.5}
    record = {"picture": "a", "task": "box", "truth": image(), "measurement": image(), "methods": {}}
    report.append(tmp_path, {**record, "stamp": keeping.stamps(other, PIXELS)[0]}, "title", "command", other)
    assert kept(tmp_path, other)[0] == ["a"]


def test_a_damaged_picture_is_named_and_made_again(tmp_path):
    finish(tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    place = tmp_path / stored["records"][1]["methods"]["DPS"]["image"]
    place.write_bytes(place.read_bytes()[:40])
    found, notes = kept(tmp_path)
    assert found == ["a", "c"] and len(notes) == 1 and str(place) in notes[0] and "made again" in notes[0]
    place.unlink()
    assert kept(tmp_path)[0] == ["a", "c"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"records": 3}', "\xff", "[" * 100_000])
def test_a_damaged_ledger_is_named_and_set_aside(tmp_path, content):
    finish(tmp_path)
    (tmp_path / "results.json").write_text(content, "latin-1")
    found, notes = kept(tmp_path)
    assert found == [] and "results.json" in notes[0] and "results.json.damaged" in notes[0]
    assert (tmp_path / "results.json.damaged").exists()
    finish(tmp_path)
    assert kept(tmp_path) == (NAMES, [])


def test_a_record_that_is_none_is_named(tmp_path):
    finish(tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    stored["records"][0] = {"picture": "a"}
    stored["records"][1] = 5
    (tmp_path / "results.json").write_text(json.dumps(stored))
    found, notes = kept(tmp_path)
    assert found == ["c"] and len(notes) == 2
    finish(tmp_path)
    assert kept(tmp_path) == (NAMES, [])


def test_a_digest_tells_types_shapes_and_parts_apart():
    zeros = np.zeros(4, np.float32)
    parts = [(zeros,), (zeros.reshape(2, 2),), (zeros.astype(np.int32),), (b"ab", b"c"), (b"a", b"bc"), ("ab",), (1,)]
    assert len({keeping.digest(*part) for part in parts}) == len(parts)
    assert keeping.digest({"a": 1, "b": 2}) == keeping.digest({"b": 2, "a": 1})


def test_code_and_weights_have_digests(monkeypatch):
    found = keeping.code("methods/solvers.py")
    assert set(found) == {"diffinv", "experiments/methods/solvers.py", "jax"}
    card = {"sha256": "a", "shape": [4, 4, 3], "sample_quality": 1}
    assert keeping.weights(card) == keeping.weights({**card, "sample_quality": 2})
    assert len({keeping.weights({**card, **change}) for change in ({}, {"sha256": "b"}, {"given": {"label": 1}})}) == 3


def test_two_runs_do_not_write_at_once(tmp_path):
    with keeping.alone(tmp_path):
        with pytest.raises(OSError, match="another run is writing to"), keeping.alone(tmp_path):
            pass
    with keeping.alone(tmp_path):
        pass
