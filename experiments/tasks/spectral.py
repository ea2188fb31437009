"""What a training run of blurring diffusion, of inverse heat dissipation or of a relay consists of; see `run.Run`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import diffinv as di
from diffinv import data, samplers, scalespace, times, weights
from diffinv.denoisers import spectral
from diffinv.schema import Schema, choice, number, whole
from experiments.common import runtime
from experiments.tasks.denoising import Denoising
from experiments.tasks.networks import ANY

SAMPLERS = ("ancestral", "renoise", "ddim", "heun", "annealed_langevin")
FIELDS: Schema = {
    "weighting": choice(tuple(spectral.WEIGHTINGS), "of the loss"),
    "sampler": choice(SAMPLERS, "of the picture of samples"),
    "field_images": whole("pictures of which the Gaussian field is measured", 2, 10**7),
}
_width = lambda meaning: number(meaning, above=0, high=1e4, unit="pixels")
BLURS: dict[str, Schema] = {
    "Relay": {"sigma_blur": _width("largest blur"), "block": whole("side of the squares that it stays in", 1, 4096)},
    "Blurring": {"sigma_blur": _width("largest blur")},
    "HeatDissipation": {"blur_max": _width("largest blur"), "delta": number("noise", above=0, high=10)},
}


class Spectral(Denoising):
    """A network beside a Gaussian field of cosines; its loss is the paper's or the posterior's."""

    @staticmethod
    def fields(config) -> Schema:
        """Beside those of a denoising prior: the blur, and how its loss is weighed."""
        process = config.get("process", {})
        process = process if isinstance(process, ConfigDict) else {}
        own = BLURS.get(process.get("name"), dict.fromkeys(process, ANY))
        return {**Denoising.fields(config), **FIELDS, "process": {**own, "name": choice(tuple(BLURS), "the process")}}

    @staticmethod
    def check(config) -> None:
        """Levels are times here, and blocks must tile the pictures."""
        if config.size % (block := config.process.get("block", 1)):
            raise ValueError(f"config.process.block is {block}; give a divisor of config.size, {config.size}")
        if max(config.eval_levels) > 1:
            raise ValueError("config.eval_levels are times; give numbers up to 1")
        Denoising.check(config)

    def __init__(self, config, source: data.Source):
        super().__init__(config, source)
        if config.optimizer != "radam" and config.weight_decay:
            raise ValueError(f"config.weight_decay is {config.weight_decay}; give 0, or it shrinks the measured field")
        fields = {"shape": list(self.shape[:2]), **config.process.to_dict()}
        name = runtime.choose("config.process.name", config.process.name, list(BLURS))
        self.process_card = {**fields, "name": name}
        self.process = weights.cards.build_process(self.process_card)
        self.codes = scalespace.spectral_codes(self.process, self.shape)
        self.field = self._field(source)
        runtime.choose("config.weighting", config.weighting, list(spectral.WEIGHTINGS))
        self.denoising_loss = scalespace.spectral_loss(self.model, config.weighting, 1 / config.sample_steps)
        self.sampler = getattr(samplers, runtime.choose("config.sampler", config.sampler, list(SAMPLERS)))

    def _field(self, source: data.Source):
        """Means and variances of pictures from all over the data, mirrored where they are mirrored in training."""
        count = min(self.config.field_images, len(source))
        rows = np.linspace(0, len(source) - 1, count).astype(int)
        pictures = data.to_unit(source.take(rows.tolist())["image"])
        pictures = np.concatenate([pictures, pictures[:, :, ::-1]]) if self.config.flip else pictures
        law = jax.jit(lambda x: scalespace.field(self.process, x, self.codes))(jnp.asarray(pictures, jnp.float32))
        return {"mean": np.asarray(law.mean), "variance": np.asarray(law.variance)}

    def init(self, key):
        seen = jnp.zeros((*self.shape[:2], 2 * self.shape[2]))
        drawn = self.net.init(key, seen, jnp.zeros(()), **self.nothing())
        return {**drawn, "field": jax.tree.map(jnp.asarray, self.field)}

    def model(self, params):
        return spectral.denoiser(params, self.process, self.net.apply, self.codes)

    def errors(self, key, params, batch):
        """Mean weighted error per time."""
        keys, images = jax.random.split(key, len(batch["image"])), data.to_unit(batch["image"])
        told, levels = self.told(jax.random.fold_in(key, 2), images, batch["label"]), self.config.eval_levels

        def one(k, image, told, t):
            denoise = self.model(params).given(**told)
            return scalespace.spectral_error(k, denoise, image, t, self.config.weighting, 1 / self.config.sample_steps)

        at = lambda t: jnp.mean(jax.vmap(one, (0, 0, 0, None))(keys, images, told, t))
        found = jax.lax.map(at, jnp.asarray(levels, jnp.float32))
        return {f"{t:g}": loss for t, loss in zip(levels, found, strict=True)}

    def sample(self, key, params, prompt):
        given = self.asked(scalespace.spectral_prior(self.model(params)), prompt)
        grid = times.grid(self.config.sample_steps).astype(jnp.float32)
        return self.codes.decode(di.sample(key, self.sampler(given), grid).x)

    def card(self) -> dict:
        steps = self.config.sample_steps
        return super().card() | {
            "parametrisation": {"parametrisation": "spectral"},
            "process": self.process_card,
            "schedule": f"t ~ U(0.001, 1), {self.config.weighting!r} weighting, steps of 1/{steps}",
            "sampler": f"{self.config.sampler}, {steps} steps",
            "field_images": self.config.field_images,
        }
