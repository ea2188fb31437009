"""Training checkpoints by orbax: asynchronous, atomic, restored on any number of devices and hosts.

The one place that knows orbax's interface.
"""

from __future__ import annotations

import os
import re
from typing import Any

import jax
import orbax.checkpoint as ocp

STATE, ABOUT = "state", "about"
PARTIAL = "orbax-checkpoint-tmp"


def snapshots(
    folder: str, keep: int = 2, permanent: int | None = None, asynchronous: bool = True
) -> ocp.CheckpointManager:
    """A manager of numbered checkpoints in `folder`; use as a context, which waits for the last one.

    Original. A checkpoint appears under its number when it is whole; what a kill left half-written is cleared away.

    Args:
      keep: how many of the newest stay.
      permanent: steps that are multiples of this stay for ever.
      asynchronous: write in the background, from a copy.

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
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(os.path.abspath(folder), options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Any, about: dict[str, Any]) -> bool:
    """Saves the state's arrays and `about` (JSON: metrics, the data iterator's state, seconds) as one unit.

    Original. False where that step is there already.
    """
    parts = {STATE: ocp.args.StandardSave(state), ABOUT: ocp.args.JsonSave(about)}
    return step not in manager.all_steps() and manager.save(step, args=ocp.args.Composite(**parts))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(re.findall(r"\w+", jax.tree_util.keystr(path))): tuple(leaf.shape) for path, leaf in leaves}


def _misfit(kept: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str | None:
    for name in {**wanted, **kept}:
        if kept.get(name) != wanted.get(name):
            return f"{name} is {kept.get(name, 'absent')} there and {wanted.get(name, 'absent')} here"
    return None


def latest(manager: ocp.CheckpointManager, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """`(state, about)` of the newest whole checkpoint, or None where there is none.

    Original. `like`: a tree of `jax.ShapeDtypeStruct` with shardings, which say where each array goes; the checkpoint
    may be of another number of devices and hosts. Raises ValueError where it is of another network or optimizer, with
    the parameter and both shapes.
    """
    step = manager.latest_step()
    if step is None:
        return None
    where = os.path.join(str(manager.directory), str(step))
    try:
        with ocp.StandardCheckpointer() as reader:
            kept = _shapes(reader.metadata(os.path.join(where, STATE)).item_metadata)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{where} is not a checkpoint of ours, or is damaged ({type(error).__name__}); move it away"
        ) from error
    misfit = _misfit(kept, _shapes(like))
    if misfit:
        raise ValueError(f"checkpoint {where} is of another network or optimizer: {misfit}; use another --workdir")
    parts = {STATE: ocp.args.StandardRestore(like), ABOUT: ocp.args.JsonRestore()}
    found = manager.restore(step, args=ocp.args.Composite(**parts))
    return found[STATE], found[ABOUT]
