"""What a training run of an upscaler consists of: CTMSR's two stages, or a ResShift-style one; see `run.Run`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import data, degrade, seed_key
from diffinv.consistency import ctmsr
from diffinv.metrics import features, image, lpips
from diffinv.schema import Schema, choice, number, path, whole
from experiments.common import reading, runtime
from experiments.tasks import networks
from experiments.tasks.denoising import COARSE, LEVELS, TAKEN, augmented

LOSSES = ("ctmsr", "dtm", "resshift")
FIELDS: Schema = {
    "method": choice(LOSSES, "stage 1, stage 2, or several steps"),
    "scale": whole("of the sides", 2, 16),
    "stride": whole("from patch to patch, 0 for the size", 0, 4096, "pixels"),
    "degradation": choice(("bicubic", "resshift"), "that makes the low resolution"),
    "sigma_max": number("noise at time 1", above=0, high=100),
    "cubic": number("of the upsampling", -1, 0),
    "index": choice(("sample", "batch"), "an interval a picture, or one a batch"),
    "anchor": number("share of targets that are the picture itself", low=0, high=1),
    "first_intervals": whole("of the curriculum", 1, 10_000),
    "last_intervals": whole("of the curriculum", 1, 10_000),
    "curriculum_steps": whole("0 for all steps", 0, 10**9),
    "charbonnier": number("of the Charbonnier distance", above=0, high=1),
    "charbonnier_weight": number("of that distance of pixels", low=0, high=1e6),
    "feature_weight": number("of the perceptual distance", low=0, high=1e6),
    "feature_taps": whole("of the feature network", 1, 5),
    "feature_size": whole("its input's side, 0 for the size", 0, 4096, "pixels"),
    "perceptual": choice(("features", "lpips"), "the perceptual distance"),
    "lpips_vgg": path("LPIPS's network, a file"),
    "lpips_linear": path("LPIPS's weights, a file"),
    "matching": choice(("l2", "perceptual"), "distance of the matched trajectories, of dtm"),
    "matching_weight": number("of the matching", low=0, high=1e6),
    "matching_weighting": choice(("improved", "simple"), "of its times"),
    "matching_t_min": number("first time", low=0, high=1),
    "matching_t_max": number("last time", low=0, high=1),
    "refresh": whole("steps from one reference to the next", 0, 10**9),
    "reference": choice(("start", "random"), "the reference before that"),
}


def perceptual(config):
    """LPIPS from the user's files, or the distance of EfficientNet-Lite0's first features at the patch's own size."""
    if runtime.choose("config.perceptual", config.perceptual, ["features", "lpips"]) == "lpips":
        return lpips.lpips(config.lpips_vgg, config.lpips_linear)
    judge = features.efficientnet_features(config.feature_size or config.size)
    judge = judge.replace(variables=jax.tree.map(jnp.asarray, judge.variables))
    return lambda x, y: image.feature_distance(lambda z: judge(z)[: config.feature_taps], x, y)


class SuperResolution:
    """CTMSR's stage 1 ("ctmsr") and stage 2 ("dtm"), and the multi-step network ("resshift")."""

    @staticmethod
    def fields(config) -> Schema:
        """The upscaler's own, its network, and fields that configurations share and this task does not read."""
        unused = {name: field for name, field in {**TAKEN, **COARSE, **LEVELS}.items() if name in config}
        return {**unused, **FIELDS, **networks.fields(config, enlarges=True)}

    @staticmethod
    def check(config) -> None:
        """Times fall, and a perceptual distance has its files."""
        if config.get("only", ""):
            raise ValueError(f"config.only is {config.only!r}, and squares of all pictures are cut here; leave it ''")
        low, high = config.matching_t_min, config.matching_t_max
        if low >= high:
            raise ValueError(f"config.matching_t_min is {low}; give less than matching_t_max, which is {high}")
        if config.perceptual == "lpips" and not (config.lpips_vgg and config.lpips_linear):
            raise ValueError("config.lpips_vgg and lpips_linear are wanted: files")

    @staticmethod
    def source(config, split: str, folder: str, watch=iter) -> data.Source:
        """Patches of the pictures of one split."""
        options = {"channels": config.channels, "reading": reading.reading()}
        return data.patches(config.data, config.size, config.stride, split, **options)

    def __init__(self, config, source: data.Source):
        self.method = runtime.choose("config.method", config.method, list(LOSSES))
        self.degradation = runtime.choose("config.degradation", config.degradation, ["bicubic", "resshift"])
        if config.size % config.scale or config.size // config.scale < 4:
            raise ValueError(f"config.size is {config.size}; it must be a multiple of config.scale {config.scale}")
        if self.method == "dtm" and not config.start:
            raise ValueError("config.start is empty; stage 2 goes on from stage 1: give the path of its export")
        self.config, self.shape = config, (config.size, config.size, config.channels)
        self.rates: list = []
        self.contextual, self.refresh = self.method != "resshift", config.refresh if self.method == "dtm" else 0
        self.architecture = networks.card(config)
        self.net = networks.build(self.architecture)
        self.parametrisation = {
            "scale": config.scale,
            "sigma_max": config.sigma_max,
            "method": "resshift" if self.method == "resshift" else "ctmsr",
            "cubic": config.cubic,
        }
        self.judge = "LPIPS" if config.perceptual == "lpips" else "EfficientNet-Lite0 features"
        multistep = self.method == "resshift"
        self.times = ctmsr.shift_times(config.sample_steps, config.sigma_max) if multistep else jnp.asarray([1.0, 0.0])
        self.train_loss = self._loss()

    def _loss(self):
        config = self.config
        if self.method == "resshift":
            return ctmsr.shift_loss(self.model, self.times)
        charbonnier = (config.charbonnier_weight, ctmsr.charbonnier(config.charbonnier))
        runtime.choose("config.matching", config.matching, ["perceptual", "l2"])
        needed = config.feature_weight or (self.method == "dtm" and config.matching == "perceptual")
        judge = perceptual(config) if needed else None
        parts = [charbonnier] + [(config.feature_weight, judge)] * bool(config.feature_weight)
        options = {"index": config.index, "anchor": config.anchor}
        steps = ctmsr.curriculum(config.first_intervals, config.last_intervals, config.curriculum_steps or config.steps)
        if self.method == "ctmsr":
            return ctmsr.consistency_loss(self.model, steps, ctmsr.weighted(*parts), **options)
        matching = judge if config.matching == "perceptual" else ctmsr.l2
        options |= {"weight": config.matching_weight, "weighting": config.matching_weighting}
        options |= {"t_min": config.matching_t_min, "t_max": config.matching_t_max}
        return ctmsr.matching_loss(self.model, steps, ctmsr.weighted(*parts), matching, **options)

    def model(self, params):
        stochastic = bool(self.architecture.get("dropout"))
        return ctmsr.Upscaler(params, self.net.apply, stochastic=stochastic, **self.parametrisation)

    def init(self, key):
        low = jnp.zeros((self.config.size // self.config.scale,) * 2 + self.shape[2:])
        return self.net.init(key, jnp.zeros(self.shape), jnp.zeros(()), low)

    def frozen(self, params):
        """Stage 2's reference: the weights it starts from, or the published trap, a random network until refreshed."""
        return None if self.config.reference == "start" else self.init(seed_key(self.config.seed + 1))

    def low(self, key, image):
        if self.degradation == "bicubic":
            return degrade.matlab_bicubic(image, self.config.scale, rounded=True)
        return degrade.realesrgan(key, image, self.config.scale)

    def pairs(self, key, images):
        return {"image": images, "low": jax.vmap(self.low)(jax.random.split(key, len(images)), images)}

    def finished(self, key, params):
        return params

    def loss(self, key, params, batch, *context):
        images, _ = augmented(self.config, key, batch)
        return self.train_loss(key, params, self.pairs(jax.random.fold_in(key, 2), images), *context)

    def errors(self, key, params, batch):
        """Mean absolute errors of the finished picture, and of the map at each time of the last grid."""
        pairs = self.pairs(key, data.to_unit(batch["image"]))
        keys = jax.random.split(key, len(pairs["image"]))
        upscaler = self.model(params)

        def one(key, x0, low):
            found = {"finished": jnp.mean(jnp.abs(ctmsr.super_resolve(key, upscaler, low, self.times) - x0))}
            if self.method == "resshift":
                return found
            count = self.config.last_intervals
            times = jnp.arange(1, count + 1) / count
            jumps = ctmsr.self_consistency_error(upscaler, key, x0, low, jnp.append(jnp.zeros(1), times))
            return found | {f"semigroup_{k + 1}_{count}": jumps[k] for k in range(count)}

        return jax.tree.map(jnp.mean, jax.vmap(one)(keys, pairs["image"], pairs["low"]))

    def alarm(self, errors):
        return ""

    def prompts(self, source: data.Source, count: int):
        """Low-resolution pictures of the held-out ones."""
        images = np.stack([source.take([i % len(source)])["image"][0] for i in range(count)])
        pairs = self.pairs(seed_key(self.config.seed), data.to_unit(jnp.asarray(images)))
        return np.asarray(pairs["low"])

    def sample(self, key, params, prompt):
        return ctmsr.super_resolve(key, self.model(params), prompt, self.times)

    def _schedule(self) -> str:
        config = self.config
        if self.method == "resshift":
            return f"{config.sample_steps} steps, kappa {config.sigma_max}, mean squared error"
        said = f"N from {config.first_intervals} to {config.last_intervals}, one index a {config.index}, anchor "
        said += f"{config.anchor}, Charbonnier {config.charbonnier} x {config.charbonnier_weight}, "
        said += f"{self.judge} x {config.feature_weight}"
        if self.method == "ctmsr":
            return said
        matching = self.judge if config.matching == "perceptual" else "l2"
        return f"{said}; matching by {matching} x {config.matching_weight}, refreshed every {config.refresh}"

    def card(self) -> dict:
        config = self.config
        return {
            "architecture": self.architecture,
            "parametrisation": self.parametrisation,
            "scale": config.scale,
            "method": self.parametrisation["method"],
            "network": self.architecture["name"],
            "trained_by": self.method,
            "degradation": config.degradation,
            "schedule": self._schedule(),
        }
