"""What a training run of an autoencoder consists of: a distance and a divergence, codes' statistics; see `run.Run`.

A prior over its codes is then the task `latent`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import data
from diffinv.codec import Codec, standard
from diffinv.schema import Schema, choice, number, switch, whole
from diffinv.weights import cards
from experiments.tasks import principal
from experiments.tasks.denoising import TAKEN, Denoising, augmented, require_whole

NET = ("channels", "multipliers", "blocks", "code_channels", "groups", "attention", "patch", "dtype")
FIELDS: Schema = {
    "distance": choice(("l2", "l1"), "of a picture and its reconstruction, a mean over the values"),
    "divergence_weight": number("of the codes' divergence from N(0, I), a mean over the values", low=0, high=1e6),
    "principal": switch("begin as the principal components of squares; for networks of one level and one group"),
    "statistics_images": whole("whose codes have mean 0 and variance 1", 2, 65_536),
}


def section(config) -> dict:
    """The card's `autoencoder`."""
    return {**config.net.to_dict(), "out_channels": config.channels}


class Autoencoder:
    """A reconstruction loss and the divergence of the codes' law, of pictures without labels."""

    contextual, refresh, rates = False, 0, []

    @staticmethod
    def fields(config) -> Schema:
        """The loss, how pictures are cut, and the network."""
        later = {name: field for name, field in TAKEN.items() if name in config}
        return {**later, **FIELDS, "net": {name: cards.AUTOENCODER[name] for name in NET}}

    @staticmethod
    def check(config) -> None:
        """The network must fit the pictures."""
        require_whole(config)
        net = cards.build_autoencoder(section(config), "config.net")
        if config.size % net.factor:
            raise ValueError(f"config.size is {config.size}; config.net wants a multiple of {net.factor} (multipliers)")
        if config.principal:
            principal.require_principal(net)

    source = staticmethod(Denoising.source)

    def __init__(self, config, source: data.Source):
        self.config, self.shape = config, (config.size, config.size, config.channels)
        self.net = cards.build_autoencoder({**section(config), "plain_conv": True}, "config.net")
        count = min(config.statistics_images, len(source))
        self.pictures = source.take(np.linspace(0, len(source) - 1, count).astype(int).tolist())["image"]
        if config.principal:
            pictures = data.to_unit(np.asarray(self.pictures))
            self.found = principal.components(pictures, config.net.patch, config.net.code_channels)

    def init(self, key):
        params = self.net.init(key, jnp.zeros(self.shape))["params"]
        if self.config.principal:
            params = principal.begun(self.net, params, self.found)
        return {"params": params, "codes": standard(self.net.code_channels)}

    def frozen(self, params):
        return None

    def _law(self, params, x):
        return self.net.apply({"params": params["params"]}, x, method="encode")

    def _picture(self, params, z):
        return self.net.apply({"params": params["params"]}, z, method="decode")

    def finished(self, key, params):
        """With the statistics of the training pictures' codes, by channel."""
        encode = lambda pixels: self._law(params, data.to_unit(pixels))[0]
        codes = jax.lax.map(encode, jnp.asarray(self.pictures), batch_size=16)
        shift, spread = jnp.mean(codes, (0, 1, 2)), jnp.std(codes, (0, 1, 2))
        return {**params, "codes": standard(codes.shape[-1], shift, 1 / jnp.maximum(spread, 1e-6))}

    def loss(self, key, params, batch):
        images, keys = augmented(self.config, key, batch)
        return jnp.mean(jax.vmap(self._loss, (0, None, 0))(keys, params, images))

    def _loss(self, key, params, x):
        config = self.config
        mean, log_variance = self._law(params, x)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)
        made = self._picture(params, z)
        distance = jnp.mean((made - x) ** 2 if config.distance == "l2" else jnp.abs(made - x))
        divergence = jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2
        return distance + config.divergence_weight * divergence

    def errors(self, key, params, batch):
        """Mean absolute and root mean square error of a decoded mean, on the [-1, 1] scale."""
        x = data.to_unit(batch["image"])
        gap = jax.vmap(lambda x: self._picture(params, self._law(params, x)[0]) - x)(x)
        return {"absolute": jnp.mean(jnp.abs(gap)), "root mean square": jnp.sqrt(jnp.mean(gap**2))}

    def alarm(self, errors):
        return ""

    def prompts(self, source: data.Source, count: int):
        """Held-out pictures, each twice: as it is, and to be coded."""
        found = source.take([i // 2 % len(source) for i in range(count)])["image"]
        return {"image": found, "whole": np.arange(count) % 2 == 0}

    def sample(self, key, params, prompt):
        x = data.to_unit(prompt["image"])
        codec = Codec(params, self.net, self.shape)
        return jnp.where(prompt["whole"], x, codec.decode(codec.encode(x)))

    def card(self) -> dict:
        config = self.config
        told = f"{config.distance}, divergence x {config.divergence_weight:g}"
        told += ", from principal components" if config.principal else ""
        codes = f"of mean 0 and variance 1 by channel over {len(self.pictures)} training pictures"
        return {"autoencoder": section(config), "schedule": f"{told}; codes {codes}", "method": "AutoencoderKL"}
