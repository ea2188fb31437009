"""What a training run of a prior over an autoencoder's codes consists of: the denoising task, on codes; see `run.Run`.

Pictures are flipped, turned and encoded as they are fed, so that the data are those of the other tasks. The encoder is
a constant of the compiled step: an autoencoder of many millions of weights makes a large program.
"""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from diffinv import data, weights
from diffinv.schema import Schema, path
from experiments.common import priors
from experiments.tasks.denoising import Denoising

FIELDS: Schema = {"autoencoder": path("a checkpoint, a path or one that ships, whose codes are denoised")}


def _found(config: ConfigDict) -> tuple[str, dict]:
    """Where the autoencoder is, and its card. Raises ValueError for none, and for another kind of checkpoint."""
    if not config.autoencoder:
        raise ValueError("config.autoencoder is ''; name an autoencoder: one that configs/autoencoder.py trained, say")
    place = priors.place(config.autoencoder)
    return place, weights.read_card(place, "autoencoder")


def of_codes(config: ConfigDict) -> ConfigDict:
    """The configuration with side and channels of the codes. Raises ValueError for pictures that have none."""
    net = weights.cards.build_autoencoder(_found(config)[1]["autoencoder"], "card.autoencoder")
    if config.channels != net.out_channels or config.size % net.factor:
        raise ValueError(
            f"config.size is {config.size} and config.channels {config.channels}; {config.autoencoder} codes pictures "
            f"of {net.out_channels} channels, whose sides are multiples of {net.factor}"
        )
    if config.get("coarse", 0):
        raise ValueError(f"config.coarse is {config.coarse}; a prior over codes is told of no coarse picture: give 0")
    inner = config.copy_and_resolve_references()
    with inner.unlocked():
        inner.size, inner.channels = config.size // net.factor, net.code_channels
    return inner


class Latent(Denoising):
    """EDM's loss on codes, with or without labels; samples are decoded."""

    @staticmethod
    def fields(config) -> Schema:
        """Those of the denoising task, and the autoencoder."""
        return {**Denoising.fields(config), **FIELDS}

    @staticmethod
    def check(config) -> None:
        """The autoencoder must fit the pictures, and the network the codes."""
        Denoising.check(of_codes(config))

    def __init__(self, config, source: data.Source):
        place, card = _found(config)
        picture = (config.size, config.size, config.channels)
        super().__init__(of_codes(config), source)
        self.codec = weights.load_autoencoder(place, picture, plain_conv=True)
        self.told_of = {"autoencoder": card["name"], "sha256": card["sha256"], "picture": list(picture)}

    def seen(self, images):
        """The codes, without a gradient."""
        return jax.lax.stop_gradient(jax.vmap(self.codec.encode)(images))

    def sample(self, key, params, prompt):
        return self.codec.decode(super().sample(key, params, prompt))

    def card(self) -> dict:
        return {**super().card(), "latent": self.told_of}
