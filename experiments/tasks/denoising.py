"""What a training run of a denoising prior consists of: network, loss, held-out errors, samples; see `run.Run`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import cascade, data, operators, process, samplers, times, train
from diffinv.schema import Schema, number, text, whole
from experiments.common import provenance, reading
from experiments.common.commandline import listed
from experiments.tasks import networks

SPREAD = number("spread of ln sigma", above=0, high=20)
MEAN = number("mean of ln sigma", -20, 20)
TAKEN: Schema = {
    "crop": whole("from one square of `size` to the next; 0 for whole pictures, shrunk to it", 0, 8192, "pixels"),
    "only": text("classes that are trained on, with commas; '' for all"),
}
COARSE: Schema = {
    "coarse": whole("side of a coarse picture that the network is told of, 0 for none", 0, 4096, "pixels"),
    "coarse_level": number("greatest deviation of the noise on it", low=0, high=100, unit="on [-1, 1]"),
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


def require_whole(config) -> None:
    """Raises ValueError where classes are wanted of squares, which have none."""
    if config.get("only", "") and config.get("crop", 0):
        raise ValueError(f"config.only is {config.only!r}, and squares have no class; config.crop or it must go")


def wanted(config, source):
    """The pictures of the classes in `config.only`. Raises ValueError for a name that is none of them."""
    names = listed(config.get("only", ""))
    try:
        return data.only(source, names) if names else source
    except ValueError as error:
        raise ValueError(f"config.only is {config.only!r}: {error}") from None


class Denoising:
    """EDM's loss on pictures, with or without labels."""

    contextual, refresh, rates = False, 0, []

    @staticmethod
    def fields(config) -> Schema:
        """How pictures are cut and noise is spread, and the network."""
        later = {name: field for name, field in {**TAKEN, **COARSE}.items() if name in config}  # not in older files
        return {**later, **LEVELS, **networks.fields(config)}

    @staticmethod
    def check(config) -> None:
        """The network must fit the pictures, and the coarse one."""
        networks.require_fit(config)
        require_whole(config)
        coarse = config.get("coarse", 0)
        if coarse and (coarse >= config.size or config.size % coarse):
            raise ValueError(f"config.coarse is {coarse}; give a divisor of config.size, {config.size}, or 0")
        if coarse and not networks.takes_coarse(config):
            known = ", ".join(networks.COARSE)
            name = networks.architecture(config)
            raise ValueError(f"config.architecture is {name!r}, which takes no coarse picture; give {known}")

    @staticmethod
    def source(config, split: str, folder: str, watch=iter) -> data.Source:
        """The pictures of one split; `folder` is where prepared data are kept, `watch` a bar for their preparation."""
        if config.get("crop", 0):
            known = {"channels": config.channels, "reading": reading.reading()}
            return data.patches(config.data, config.size, config.crop, split, **known)
        place = (split, folder, config.channels, config.download, reading.reading())
        return wanted(config, data.source(config.data, config.size, *place, watch=watch))

    def __init__(self, config, source: data.Source):
        if config.classes and config.classes < len(source.classes):
            raise ValueError(f"config.classes is {config.classes}, but the data have {len(source.classes)} labels")
        self.config, self.labels = config, list(source.classes)
        self.process, self.shape = process.EDM(), (config.size, config.size, config.channels)
        self.process_card = {"name": "EDM", "sigma_max": self.process.sigma_max}
        side = config.get("coarse", 0)
        self.coarse = (side, side, config.channels) if side else None
        more = {"classes": config.classes + 1} if config.classes else {}
        more |= {"low_channels": config.channels} if side else {}
        self.architecture = networks.card(config, out_channels=config.channels, **more)
        self.net = networks.build(self.architecture)
        self.parametrisation = {"parametrisation": "edm", "sigma_data": config.sigma_data}
        spread = (config.log_sigma_mean, config.log_sigma_std, config.sigma_data)
        self.denoising_loss = train.denoising_loss(self.model, self.process, *spread)
        levels = jnp.asarray(config.eval_levels, jnp.float32)
        self.levels_loss = train.noise_levels_loss(self.model, self.process, levels, config.sigma_data)

    def init(self, key):
        return self.net.init(key, jnp.zeros(self.shape), jnp.zeros(()), **self.nothing())

    def nothing(self):
        """Zeros for each condition of the network."""
        told = {"label": jnp.zeros((), jnp.int32)} if self.config.classes else {}
        return told | (cascade.condition(jnp.zeros(self.coarse), self.shape, 0.0) if self.coarse else {})

    def model(self, params):
        return di.NetworkDenoiser(params, self.process, self.net.apply, **self.parametrisation)

    def frozen(self, params):
        return None

    def seen(self, images):
        """What is denoised of pictures in [-1, 1]: themselves, or their codes."""
        return images

    def examples(self, key, batch):
        """Augmented pictures, with what the network is told of each, if anything; labels are dropped at times."""
        images, keys = augmented(self.config, key, batch)
        drop = lambda k, label: train.drop_label(k, label, self.config.classes, self.config.label_dropout)
        images = self.seen(images)
        told = self.told(jax.random.fold_in(key, 2), images, jax.vmap(drop)(keys, batch["label"]))
        return {"image": images, **told} if told else images

    def told(self, key, images, label):
        """The conditions: labels, where there are classes, and coarse pictures, each at a level of its own."""
        told = {"label": label} if self.config.classes else {}
        if not self.coarse:
            return told
        one = lambda k, x0: cascade.augmented_condition(k, x0, self.coarse, self.config.coarse_level)
        return told | jax.vmap(one)(jax.random.split(key, len(images)), images)

    def finished(self, key, params):
        return params

    def loss(self, key, params, batch):
        return self.denoising_loss(key, params, self.examples(key, batch))

    def errors(self, key, params, batch):
        """Mean weighted error per noise level."""
        images = self.seen(data.to_unit(batch["image"]))
        told = self.told(jax.random.fold_in(key, 2), images, batch["label"])
        losses = self.levels_loss(key, params, {"image": images, **told})
        return {f"{level:g}": loss for level, loss in zip(self.config.eval_levels, losses, strict=True)}

    def alarm(self, errors):
        return ""

    def prompts(self, source: data.Source, count: int):
        """Labels, one row of the grid a class where there are classes; coarse pictures of held-out ones, and theirs."""
        if not self.coarse:
            return {"label": np.arange(count, dtype=np.int32) // self.config.sample_grid % max(self.config.classes, 1)}
        rows = source.take([i % len(source) for i in range(count)])
        average = operators.average_pool(self.shape, self.shape[0] // self.coarse[0])
        return {"label": rows["label"], "coarse": np.asarray(jax.vmap(average)(data.to_unit(rows["image"])))}

    def asked(self, model, prompt):
        """A prior or denoiser, told what a prompt says, of a coarse picture as it is."""
        told = {"label": prompt["label"]} if self.config.classes else {}
        told |= cascade.condition(prompt["coarse"], self.shape, 0.0) if self.coarse else {}
        return model.given(**told)

    def sample(self, key, params, prompt):
        grid, prior = times.karras(self.config.sample_steps), di.Prior(self.process, self.model(params), self.shape)
        return di.sample(key, samplers.heun(self.asked(prior, prompt)), grid).x

    def card(self) -> dict:
        config = self.config
        card = {
            "architecture": self.architecture,
            "parametrisation": self.parametrisation,
            "process": self.process_card,
            "schedule": f"ln sigma ~ N({config.log_sigma_mean}, {config.log_sigma_std}^2), EDM weighting",
        }
        if self.coarse:
            card["coarse"] = {"side": self.coarse[0], "level": config.coarse_level}
        if config.classes:
            card |= {
                "given": {"label": config.classes},
                "labels": list(map(provenance.plain, self.labels)),
                "label_null": config.classes,
            }
            card["label_dropout"] = config.label_dropout
        return card
