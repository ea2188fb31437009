"""Meshes and placements: shard the inputs along `data`, and `vmap` with `jit` follow.

Nothing here moves an array: these say where one belongs, and experiments put it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def mesh(data: int | None = None, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes `data` and `fsdp` over the devices, all by default; `data` defaults to what `fsdp` leaves.

    Raises ValueError where `data * fsdp` is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data = count // max(fsdp, 1) if data is None else data
    if data * fsdp != count:
        raise ValueError(f"data is {data} and fsdp is {fsdp}: their product must be the device count, {count}")
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def split(mesh: Mesh) -> NamedSharding:
    """Along `data`: for batches, keys and measurements (leading axis)."""
    return NamedSharding(mesh, PartitionSpec("data"))


def rows(mesh: Mesh) -> NamedSharding:
    """Along `data` and `fsdp` together: for training batches, since fully sharded parameters are no reason to compute
    an example twice."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device: for parameters."""
    return NamedSharding(mesh, PartitionSpec())


def fsdp(mesh: Mesh, tree: Any) -> Any:
    """Shardings that split each leaf's largest axis that `fsdp` divides, and replicate the others.

    `tree` holds arrays or `jax.ShapeDtypeStruct`s; the result is a tree of shardings. Source: Zhao et al. 2023,
    arXiv:2304.11277 (parameters fully sharded), by annotation instead of by hand.
    """
    size = mesh.shape["fsdp"]

    def leaf(x: Any) -> NamedSharding:
        axes = [axis for axis in sorted(range(len(x.shape)), key=lambda a: -x.shape[a]) if x.shape[axis] % size == 0]
        if size == 1 or not axes:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * axes[0], "fsdp"))

    return jax.tree.map(leaf, tree)
