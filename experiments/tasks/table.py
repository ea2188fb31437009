"""The training tasks by name; another one is a class as `protocol.Task` has it, and one entry here."""

from __future__ import annotations

from ml_collections import ConfigDict

from experiments.common import runtime
from experiments.tasks.adversarial import Adversarial
from experiments.tasks.autoencoder import Autoencoder
from experiments.tasks.consistency import Consistency
from experiments.tasks.denoising import Denoising
from experiments.tasks.latent import Latent
from experiments.tasks.protocol import Task
from experiments.tasks.spectral import Spectral
from experiments.tasks.super_resolution import SuperResolution

TASKS: dict[str, type[Task]] = {
    "denoising": Denoising,
    "spectral": Spectral,
    "consistency": Consistency,
    "super_resolution": SuperResolution,
    "adversarial": Adversarial,
    "autoencoder": Autoencoder,
    "latent": Latent,
}


def task(config: ConfigDict) -> type[Task]:
    """The class of the task that the configuration names. Raises ValueError for another name."""
    return TASKS[runtime.choose("config.task", config.task, list(TASKS))]
