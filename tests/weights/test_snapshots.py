"""Training checkpoints: whole or absent, of any device count, and never of another network."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import sharding
from diffinv.weights import snapshots


def state(width=8):
    return {"w": jnp.arange(4.0 * width).reshape(4, width), "steps": jnp.asarray(3, jnp.int32)}


def like(tree, places=None):
    places = jax.tree.map(lambda a: a.sharding, tree) if places is None else places
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, places)


def saved(folder, *steps, **options):
    with snapshots.snapshots(folder, **options) as manager:
        for step in steps:
            assert snapshots.save_snapshot(manager, step, state(), {"metric": step / 2})
    return sorted(int(name) for name in os.listdir(folder))


def test_the_newest_and_the_permanent_ones_stay(tmp_path):
    assert saved(tmp_path / "run", 1, 2, 3, 4, 5, keep=2, permanent=2) == [2, 4, 5]


def test_nothing_saved_is_none(tmp_path):
    with snapshots.snapshots(tmp_path / "new") as manager:
        assert snapshots.latest(manager, like(state())) is None


def test_an_existing_step_is_not_saved_again(tmp_path):
    with snapshots.snapshots(tmp_path / "run") as manager:
        assert snapshots.save_snapshot(manager, 1, state(), {}) and not snapshots.save_snapshot(manager, 1, state(), {})


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_restores_on_another_mesh(tmp_path, fsdp):
    """Saved from one device, placed as the new mesh wants it."""
    saved(tmp_path / "run", 7)
    places = sharding.fsdp(sharding.mesh(fsdp=fsdp), state())
    with snapshots.snapshots(tmp_path / "run") as manager:
        found, about, _ = snapshots.latest(manager, like(state(), places))
    assert about == {"metric": 3.5}
    jax.tree.map(np.testing.assert_array_equal, found, state())
    assert found["w"].sharding == places["w"] and len(found["w"].sharding.device_set) == 8


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    saved(tmp_path / "run", 1)
    half = tmp_path / "run" / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    with snapshots.snapshots(tmp_path / "run") as manager:
        assert snapshots.latest(manager, like(state())).about == {"metric": 0.5}
        assert snapshots.save_snapshot(manager, 2, state(), {})
    assert not half.exists()


def test_another_network_is_refused_with_both_shapes(tmp_path):
    saved(tmp_path / "run", 1)
    with snapshots.snapshots(tmp_path / "run") as manager:
        with pytest.raises(ValueError, match=r"w is \(4, 8\) there and \(4, 9\) here"):
            snapshots.latest(manager, like(state(9)))
        with pytest.raises(ValueError, match=r"bias is absent there and \(2,\) here"):
            snapshots.latest(manager, like({**state(), "bias": jnp.zeros(2)}))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    saved(tmp_path / "run", 1)
    for path in (tmp_path / "run" / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with snapshots.snapshots(tmp_path / "run") as manager:
        with pytest.raises(ValueError, match="damaged"):
            snapshots.latest(manager, like(state()))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 4
    path.write_bytes(content)


def largest(folder):
    """The file that holds the arrays."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("which", ["arrays", "about", "_METADATA"])
def test_one_damaged_byte_is_noticed_and_the_older_one_taken(tmp_path, which):
    """orbax itself reads the damaged arrays without a word."""
    saved(tmp_path / "run", 1, 2)
    two = tmp_path / "run" / "2"
    file = {"arrays": largest(two / "state"), "about": two / "about" / "metadata"}.get(which, two / "state" / which)
    flip(file, len(file.read_bytes()) // 2)
    with snapshots.snapshots(tmp_path / "run") as manager:
        found = snapshots.latest(manager, like(state()))
        assert found.about == {"metric": 0.5} and list(found.damaged) == [2]
        assert str(two) in found.damaged[2] and "\n" not in found.damaged[2]
        assert not snapshots.save_snapshot(manager, 2, state(), {})
        moved = snapshots.set_aside(manager, 2)
        manager.reload()
        assert snapshots.save_snapshot(manager, 2, state(), {"metric": 9.0})
    assert os.path.isdir(moved)
    with snapshots.snapshots(tmp_path / "run") as manager:
        assert snapshots.latest(manager, like(state())).about == {"metric": 9.0}


def test_checkpoints_without_checksums_are_still_read(tmp_path):
    with snapshots.snapshots(tmp_path / "run") as manager:
        parts = {"state": snapshots.ocp.args.StandardSave(state()), "about": snapshots.ocp.args.JsonSave({"old": 1})}
        manager.save(1, args=snapshots.ocp.args.Composite(**parts))
    with snapshots.snapshots(tmp_path / "run") as manager:
        assert snapshots.latest(manager, like(state())).about == {"old": 1}


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis.tex"):
        snapshots.snapshots(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
