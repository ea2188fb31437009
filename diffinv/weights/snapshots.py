"""Training checkpoints by orbax: asynchronous, atomic, restored on any number of devices and hosts.

The one place that knows orbax's interface.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffinv.describe import described

STATE, ABOUT = "state", "about"
PARTIAL = "orbax-checkpoint-tmp"


def snapshots(
    folder: str, keep: int = 2, permanent: int | None = None, asynchronous: bool = True, read_only: bool = False
) -> ocp.CheckpointManager:
    """A manager of numbered checkpoints in `folder`; use as a context, which waits for the last one.

    A checkpoint appears under its number when it is whole; what a kill left half-written is cleared away.

    Args:
      keep: how many of the newest stay.
      permanent: steps that are multiples of this stay for ever.
      asynchronous: write in the background, from a copy.
      read_only: touch nothing, so that a training may go on in the folder.

    Raises ValueError where the folder holds something else, which would be in danger.
    """
    names = os.listdir(folder) if os.path.isdir(folder) else []
    foreign = [name for name in names if not re.fullmatch(rf"\d+(\.{PARTIAL}.*)?|\..*", name)]
    if foreign:
        raise ValueError(f"{folder} holds {sorted(foreign)[0]!r}, which is no checkpoint; choose another folder")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        keep_period=permanent,
        enable_async_checkpointing=asynchronous,
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
    )
    return ocp.CheckpointManager(os.path.abspath(folder), options=options)


def _sums(state: Any) -> dict[str, int] | None:
    """A checksum of every array; None where this process does not hold all of them."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    if not all(getattr(leaf, "is_fully_addressable", True) for _, leaf in leaves):
        return None
    return {_name(path): zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).ravel().data) for path, leaf in leaves}


def _seal(about: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def save_snapshot(manager: ocp.CheckpointManager, step: int, state: Any, about: dict[str, Any]) -> bool:
    """Saves the state's arrays and `about` (JSON: metrics, the data iterator's state, seconds) as one unit.

    False where that step is there already. Checksums of both are kept beside them, because orbax reads a
    damaged array without a word.
    """
    told = {"about": about, "sums": _sums(state)}
    parts = {STATE: ocp.args.StandardSave(state), ABOUT: ocp.args.JsonSave({**told, "seal": _seal(told)})}
    return step not in manager.all_steps() and manager.save(step, args=ocp.args.Composite(**parts))


def _name(path: Any) -> str:
    return "/".join(re.findall(r"\w+", jax.tree_util.keystr(path)))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _misfit(kept: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str | None:
    for name in {**wanted, **kept}:
        if kept.get(name) != wanted.get(name):
            return f"{name} is {kept.get(name, 'absent')} there and {wanted.get(name, 'absent')} here"
    return None


def _require_sound(found: Any, told: dict[str, Any]) -> dict[str, Any]:
    """What was kept about the state; ValueError where it, or an array, is not what was written."""
    if "seal" not in told:  # of an earlier version
        return told
    if _seal({name: value for name, value in told.items() if name != "seal"}) != told["seal"]:
        raise ValueError("what it says about itself has changed")
    sums = _sums(found) if told["sums"] is not None else None
    for name, kept in (told["sums"] or {}).items():
        if sums is not None and sums.get(name) != kept:
            raise ValueError(f"the array {name} has changed")
    return told["about"]


def _read(manager: ocp.CheckpointManager, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """One checkpoint. Raises ValueError where it is of another network or damaged, which looks alike at times."""
    where = os.path.join(str(manager.directory), str(step))
    try:
        with ocp.StandardCheckpointer() as reader:
            kept = _shapes(reader.metadata(os.path.join(where, STATE)).item_metadata)
        misfit = _misfit(kept, _shapes(like))
        if misfit is None:
            parts = {STATE: ocp.args.StandardRestore(like), ABOUT: ocp.args.JsonRestore()}
            found = manager.restore(step, args=ocp.args.Composite(**parts))
            return found[STATE], _require_sound(found[STATE], found[ABOUT])
    except Exception as error:  # whatever damaged bytes bring orbax to: the older checkpoint is wanted then
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{where} is not a checkpoint of ours, or is damaged ({why}); move it away") from error
    raise ValueError(f"checkpoint {where} is of another network or optimizer: {misfit}; use another --workdir")


@described
class Latest(NamedTuple):
    """What `latest` gives.

    Attributes:
      state: of the training.
      about: what was saved about it.
      damaged: why each newer checkpoint was passed over, by its step.
    """

    state: Any
    about: dict[str, Any]
    damaged: dict[int, str]


def latest(manager: ocp.CheckpointManager, like: Any) -> Latest | None:
    """The newest whole checkpoint, or None where there is none at all.

    `like`: a tree of `jax.ShapeDtypeStruct` with shardings, which say where each array goes; the checkpoint
    may be of another number of devices and hosts. Raises ValueError, about the newest, where none is whole and of this
    network and optimizer, with the parameter and both shapes.
    """
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return Latest(*_read(manager, step, like), damaged)
        except ValueError as error:
            damaged[step] = str(error)
    if damaged:
        raise ValueError(damaged[max(damaged)])
    return None


def set_aside(manager: ocp.CheckpointManager, step: int) -> str:
    """Renames a damaged checkpoint, so that its step can be saved again; returns its new path."""
    folder = str(manager.directory)
    moved = os.path.join(folder, f".damaged-{step}-{os.getpid()}")
    os.rename(os.path.join(folder, str(step)), moved)
    return moved
