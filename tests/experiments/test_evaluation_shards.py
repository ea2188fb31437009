"""Shards: what is read is what was written, or it is named and put aside."""

import errno
from unittest import mock

import numpy as np
import pytest

from experiments.evaluation import shards
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result

ABOUT = {"made_by": {"jax": "1"}, "batch": 2}


def result(i, draw=0, **scores):
    x = shards.stored(np.full((4, 3, 3), i / 10))
    return Result(Item(f"{i:032x}", draw), x, {"psnr": 20.0 + i, "nfe": 3.0, **scores}, ABOUT)


def same(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    assert (a.item, a.about) == (b.item, b.about)
    np.testing.assert_equal(a.scores, b.scores)


def test_what_is_read_is_what_was_written(tmp_path):
    made = [result(0), result(1, psnr=float("nan")), result(1, draw=1, psnr=float("-inf"))]
    shards.write(tmp_path, made[:2])
    shards.write(tmp_path, made[2:])
    found, lines = shards.read(tmp_path)
    assert not lines and list(found) != [] and set(found) == {each.item for each in made}
    for each in made:
        same(found[each.item], each)


def test_a_file_is_named_by_its_content(tmp_path):
    first = shards.write(tmp_path, [result(0)])
    assert shards.write(tmp_path, [result(0)]) == first
    assert shards.write(tmp_path, [result(0, psnr=1.0)]) != first


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:80] + b"x" + b[81:], lambda b: b"", lambda b: b + b"0"]
)
def test_a_tampered_shard_is_named_put_aside_and_no_longer_read(tmp_path, damage):
    path = shards.write(tmp_path, [result(0)])
    whole = shards.write(tmp_path, [result(1)])
    path.write_bytes(damage(path.read_bytes()))
    found, lines = shards.read(tmp_path)
    assert list(found) == [result(1).item] and whole.exists() and not path.exists()
    assert len(lines) == 1 and path.name in lines[0] and "computed again" in lines[0]
    assert path.with_name(path.name + shards.DAMAGED).exists()
    shards.write(tmp_path, [result(0)])
    assert len(shards.read(tmp_path)[0]) == 2


def test_a_shard_under_a_name_of_its_own_that_is_no_shard(tmp_path):
    """A file with the right name and foreign content: pickled arrays, say, which are never loaded."""
    import io

    file = io.BytesIO()
    np.savez(file, head=np.array({"a": 1}, object))
    (tmp_path / f"{shards._name(file.getvalue())}.npz").write_bytes(file.getvalue())
    found, lines = shards.read(tmp_path)
    assert not found and "allow_pickle" in lines[0]


def test_a_full_disk_keeps_what_is_finished(tmp_path):
    shards.write(tmp_path, [result(0)])
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch("experiments.report.ledger.replacing", side_effect=full):
        with pytest.raises(OSError, match="no space left for .*finished before are kept"):
            shards.write(tmp_path, [result(1)])
    assert set(shards.read(tmp_path)[0]) == {result(0).item}


def test_sixteen_bits_hold_a_picture_to_a_65535th():
    x = np.linspace(-1, 1, 1001).reshape(-1, 1, 1)
    again = shards.unit(shards.stored(x))
    assert again.dtype == np.float32 and np.abs(again - x).max() <= 1 / 65535 + 1e-7
    found = shards.unit(shards.stored(np.array([np.nan, -9, 9, np.inf])))
    np.testing.assert_allclose(found, [0, -1, 1, 1], atol=1 / 65535)


def test_what_is_kept_holds_a_cell_to_its_settings(tmp_path):
    settings = {"sigma_y": 0.05, "dps": {"zeta": 1.0}, "weights": "ab"}
    shards.claim(tmp_path, {**settings, "weights": "of a run that kept nothing"})
    shards.require_same(tmp_path, settings, "box / DPS")
    shards.claim(tmp_path, settings)
    shards.write(tmp_path, [result(0)])
    shards.require_same(tmp_path, settings, "box / DPS")
    with pytest.raises(ValueError, match="box / DPS was computed with dps.zeta = 1.0, not 2.0; give another"):
        shards.require_same(tmp_path, {**settings, "dps": {"zeta": 2.0}}, "box / DPS")
    with pytest.raises(ValueError, match='weights = "ab", not "cd"'):
        shards.require_same(tmp_path, {**settings, "weights": "cd"}, "box / DPS")
    (tmp_path / "cell.json").write_text("{")
    with pytest.raises(ValueError, match="was computed with"):
        shards.require_same(tmp_path, settings, "box / DPS")


def test_chunks_are_all_items_in_order():
    assert [list(each) for each in shards.chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(shards.chunks([], 3)) == []
