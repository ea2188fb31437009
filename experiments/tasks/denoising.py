"""What a training run of a denoising prior consists of: network, loss, held-out errors, samples; see `run.Run`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import data, process, samplers, times, train
from diffinv.schema import Schema, number, whole
from experiments.common import provenance, reading
from experiments.tasks import networks

SPREAD = number("spread of ln sigma", above=0, high=20)
MEAN = number("mean of ln sigma", -20, 20)
CROP: Schema = {
    "crop": whole("from one square of `size` to the next; 0 for whole pictures, shrunk to it", 0, 8192, "pixels"),
}
LEVELS: Schema = {
    "sigma_data": number("deviation of the pictures", above=0, high=100, unit="on [-1, 1]"),
    "log_sigma_mean": MEAN,
    "log_sigma_std": SPREAD,
}


def augmented(config, key, batch):
    """Pictures in [-1, 1], flipped, shifted and turned as the configuration says, and the keys that are left."""

    def one(key, image):
        distort, rest = jax.random.split(jax.random.fold_in(key, 1))
        return data.augment(distort, data.to_unit(image), config.flip, config.shift, config.turn), rest

    return jax.vmap(one)(jax.random.split(key, len(batch["image"])), batch["image"])


class Denoising:
    """EDM's loss on pictures, with or without labels."""

    contextual, refresh, rates = False, 0, []

    @staticmethod
    def fields(config) -> Schema:
        """How pictures are cut and noise is spread, and the network."""
        cut = CROP if "crop" in config else {}  # written before pictures could be cut
        return {**cut, **LEVELS, **networks.fields(config)}

    @staticmethod
    def check(config) -> None:
        """The network must fit the pictures."""
        networks.require_fit(config)

    @staticmethod
    def source(config, split: str, folder: str, watch=iter) -> data.Source:
        """The pictures of one split; `folder` is where prepared data are kept, `watch` a bar for their preparation."""
        if config.get("crop", 0):
            known = {"channels": config.channels, "reading": reading.reading()}
            return data.patches(config.data, config.size, config.crop, split, **known)
        place = (split, folder, config.channels, config.download, reading.reading())
        return data.source(config.data, config.size, *place, watch=watch)

    def __init__(self, config, source: data.Source):
        if config.classes and config.classes < len(source.classes):
            raise ValueError(f"config.classes is {config.classes}, but the data have {len(source.classes)} labels")
        self.config, self.labels = config, list(source.classes)
        self.process, self.shape = process.EDM(), (config.size, config.size, config.channels)
        self.process_card = {"name": "EDM", "sigma_max": self.process.sigma_max}
        labels = {"classes": config.classes + 1} if config.classes else {}
        self.architecture = networks.card(config, out_channels=config.channels, **labels)
        self.net = networks.build(self.architecture)
        self.parametrisation = {"parametrisation": "edm", "sigma_data": config.sigma_data}
        spread = (config.log_sigma_mean, config.log_sigma_std, config.sigma_data)
        self.denoising_loss = train.denoising_loss(self.model, self.process, *spread)
        levels = jnp.asarray(config.eval_levels, jnp.float32)
        self.levels_loss = train.noise_levels_loss(self.model, self.process, levels, config.sigma_data)

    def init(self, key):
        label = {"label": jnp.zeros((), jnp.int32)} if self.config.classes else {}
        return self.net.init(key, jnp.zeros(self.shape), jnp.zeros(()), **label)

    def model(self, params):
        return di.NetworkDenoiser(params, self.process, self.net.apply, **self.parametrisation)

    def frozen(self, params):
        return None

    def examples(self, key, batch):
        """Augmented pictures, with labels that are dropped at times."""
        images, keys = augmented(self.config, key, batch)
        if not self.config.classes:
            return images
        drop = lambda k, label: train.drop_label(k, label, self.config.classes, self.config.label_dropout)
        return {"image": images, "label": jax.vmap(drop)(keys, batch["label"])}

    def finished(self, key, params):
        return params

    def loss(self, key, params, batch):
        return self.denoising_loss(key, params, self.examples(key, batch))

    def errors(self, key, params, batch):
        """Mean weighted error per noise level."""
        example = {"image": data.to_unit(batch["image"])}
        example |= {"label": batch["label"]} if self.config.classes else {}
        losses = self.levels_loss(key, params, example)
        return {f"{level:g}": loss for level, loss in zip(self.config.eval_levels, losses, strict=True)}

    def alarm(self, errors):
        return ""

    def prompts(self, source: data.Source, count: int):
        """Labels, one row of the grid a class where there are classes."""
        return np.arange(count, dtype=np.int32) // self.config.sample_grid % max(self.config.classes, 1)

    def sample(self, key, params, prompt):
        grid, prior = times.karras(self.config.sample_steps), di.Prior(self.process, self.model(params), self.shape)
        given = prior.given(label=prompt) if self.config.classes else prior
        return di.sample(key, samplers.heun(given), grid).x

    def card(self) -> dict:
        config = self.config
        card = {
            "architecture": self.architecture,
            "parametrisation": self.parametrisation,
            "process": self.process_card,
            "schedule": f"ln sigma ~ N({config.log_sigma_mean}, {config.log_sigma_std}^2), EDM weighting",
        }
        if config.classes:
            card |= {
                "given": {"label": config.classes},
                "labels": list(map(provenance.plain, self.labels)),
                "label_null": config.classes,
            }
            card["label_dropout"] = config.label_dropout
        return card
