"""Weights: files and their cards, priors out of them, certificates, training snapshots, and public checkpoints."""

from diffinv.weights import cards, convert, snapshots
from diffinv.weights.certificate import certified, probe, probe_shape, references, verify
from diffinv.weights.foreign import load_onnx, read_onnx_card
from diffinv.weights.loading import (
    any_size,
    architecture,
    build,
    load_autoencoder,
    load_generator,
    load_latent,
    load_prior,
    load_upscaler,
)
from diffinv.weights.store import amend, embedded, flatten, halved, read_card, restore, save, unflatten, widened

__all__ = [
    "amend",
    "any_size",
    "architecture",
    "build",
    "cards",
    "certified",
    "convert",
    "embedded",
    "flatten",
    "halved",
    "load_autoencoder",
    "load_generator",
    "load_latent",
    "load_onnx",
    "load_prior",
    "load_upscaler",
    "probe",
    "probe_shape",
    "read_card",
    "read_onnx_card",
    "references",
    "restore",
    "save",
    "snapshots",
    "unflatten",
    "verify",
    "widened",
]
