"""Turn a public checkpoint into a prior: safetensors and a model card with a certificate.

    python -m experiments.import_checkpoint SOURCE --out=DIR
    python -m experiments.import_checkpoint DIR/NAME --verify
    python -m experiments.import_checkpoint DIR/NAME --ratio=48
    python -m experiments.import_checkpoint --demo=FILE.pt

SOURCE is an ADM file (.pt of guided-diffusion, and the FFHQ network of DPS), a DiT file, a folder of diffusers'
UNet2DModel, DiTTransformer2DModel or AutoencoderKL (docs/latent.md), an EDM network as docs/bring-your-own-prior.md
writes it, the terrain model's .onnx (docs/terrain.md), or a checkpoint of
our own. Nothing in it is run. DIR/NAME is then what `--config.prior` of experiments.reconstruct takes.

The card's certificate holds what the prior makes of fixed inputs; `--verify` computes it again. `--ratio` measures
`diffinv.metrics.denoising` of a consistency model on its own samples, and warns where it is no mean. `--demo` writes a
tiny ADM file with drawn weights, to try the commands on. Presets of ADM:
ffhq256 imagenet256_uncond imagenet256 imagenet64 imagenet128 imagenet512 demo32
"""

from __future__ import annotations

import os
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import schema
from diffinv.metrics import denoising
from diffinv.nn import unet
from diffinv.weights.convert import adm, placing, public, torchwrite

NOISE = (80.0, 20.0, 5.0, 1.0, 0.06)
OUT = runtime.flag("out", None, schema.path("folder for NAME.safetensors and NAME.json"))
NAME = runtime.flag("name", None, schema.component("of the two files; default: the preset's or the source's"))
VERIFY = runtime.flag("verify", False, schema.switch("recompute the certificate of a checkpoint that was imported"))
RATIO = runtime.flag(
    "ratio",
    None,
    schema.whole("measure over that many one-step samples whether an imported consistency model is a mean", 2, 10_000),
)
DEMO = runtime.flag("demo", None, schema.path("write a tiny ADM file with drawn weights here, and stop"))
PRESET = runtime.flag(
    "preset", None, schema.choice([*adm.PRESETS, "none"], "a published ADM network; default: the one of its shapes")
)
SIZE = runtime.flag("size", None, schema.whole("native size, where no preset says it", 1, 8192, "pixels"))
SCHEDULE = runtime.flag(
    "schedule", None, schema.choice(["linear", "scaled_linear", "cosine"], "of beta, where nothing says it")
)
HEAD_CHANNELS = runtime.flag(
    "head_channels", None, schema.whole("channels of an attention head, where no preset says it", 1, 8192)
)
HEADS = runtime.flag("heads", None, schema.whole("attention heads, where their number is fixed", 1, 1024))
NEW_ORDER = runtime.flag("new_attention_order", None, schema.switch("ADM's use_new_attention_order"))
WEIGHTS = runtime.flag("weights", None, schema.text("the state dict's name in a file that holds several"))
EMA = runtime.flag("ema", None, schema.text("what the card should say of the weights' moving average"))
LABEL = runtime.flag("label", None, schema.number("class or number that a conditional prior is for", 0, 2**20))
AUTOENCODER = runtime.flag(
    "autoencoder", None, schema.path("an imported autoencoder, over whose codes the prior is; see docs/latent.md")
)
LIMIT = runtime.flag(
    "limit",
    None,
    schema.whole("memory that the arrays may take; default: 256 MiB and 8 times the file", 1, unit="bytes"),
)


def demo(path: str, seed: int = 0) -> None:
    """Writes the network of the preset demo32 under ADM's names, with small drawn weights."""
    fields = adm.PRESETS["demo32"]
    net = unet.UNet(**fields.visible, head_channels=fields.head_channels, smallest_group=1)
    generator = np.random.default_rng(seed)
    state = {}
    for names, leaf in placing.shapes(net).items():
        value = generator.standard_normal(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        value = 1 + 0.1 * value if names[-1] == "scale" else value
        state[adm.torch_name(names)] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    if os.path.exists(path):
        raise ValueError(f"{path} exists; remove it, or name another file")
    torchwrite.write_state_dict(path, state)
    print(f"{path}: {unet.parameter_count(state)} drawn weights of the preset demo32")


def options() -> dict:
    """What the flags say of what the file hides."""
    return {
        "preset": PRESET.value,
        "size": SIZE.value,
        "schedule": SCHEDULE.value,
        "head_channels": HEAD_CHANNELS.value,
        "heads": HEADS.value,
        "new_attention_order": NEW_ORDER.value,
    }


def loaded(source: str) -> placing.Imported:
    """A checkpoint of our own, where a card of ours lies beside it, or a public one."""
    beside = Path(source.removesuffix(".safetensors").removesuffix(".json") + ".json")
    if beside.exists() and "architecture" in placing.read_json(beside):
        certifiable(di.weights.read_card(source, "prior"), source)
        return placing.Imported(*di.weights.restore(source))
    return public.load_public(source, WEIGHTS.value, EMA.value, LIMIT.value, **options())


def certifiable(card: dict, source: str) -> None:
    """Raises ValueError for a prior over coefficients, whose reference outputs are not defined."""
    if card["parametrisation"]["parametrisation"] == "spectral":
        raise ValueError(f"{source} is a spectral prior, which has no certificate; copy its two files as they are")


def labelled(card: dict) -> dict:
    """The card with the label that the prior is for. Raises ValueError where labels are known and none is chosen."""
    classes, scalar, label = *map(card["architecture"].get, ("classes", "scalar_label")), LABEL.value
    if classes is None and not scalar and label is not None:
        raise ValueError(f"label is {label:g}, and the network knows no labels; leave --label out")
    if classes is None and not scalar or (label is None and "given" in card):
        return card
    if scalar and (label is None or label > 1):
        raise ValueError(f"the network is conditional on a number and label is {label}; give --label=X, from 0 to 1")
    if not scalar and (label is None or label != int(label) or not 0 <= label < classes):
        raise ValueError(f"the network is conditional on {classes} classes and label is {label}; give --label=N")
    return {**card, "given": {"label": label if scalar else int(label)}}


def computed(params: dict, card: dict) -> np.ndarray:
    """The reference outputs, in full float32."""
    prior, shape = di.weights.build(params, card), di.weights.probe_shape(card)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(di.weights.references, static_argnums=1)(prior, shape))


def convert(source: str) -> None:
    """Imports `source` into --out; nothing that exists is overwritten, and nothing is left of what fails."""
    params, card = loaded(source)
    coder = di.weights.cards.is_autoencoder(card)
    card = card if coder else over_codes(labelled(card))
    name = NAME.value or card.get("name") or Path(source).stem
    schema.require({"name": schema.component()}, {"name": name}, "checkpoint")
    target = os.path.join(OUT.value, name)
    for existing in (f"{target}.safetensors", f"{target}.json"):
        if os.path.exists(existing):
            raise ValueError(f"{existing} exists; give another --name or --out, or remove it")
    shape = None if coder else di.weights.probe_shape(card)
    certificate = {} if coder else {"certificate": di.weights.certified(computed(params, card), shape)}
    card = di.weights.save(target, params, {**card, "name": name, **certificate})
    print(f"{target}.safetensors: {card['parameters']:,} parameters, sha256 {card['sha256'][:12]}..")
    print(told_of_codes(target) if coder else told(card, target))


def told_of_codes(target: str) -> str:
    """One line on an autoencoder that was imported."""
    codec = di.weights.load_autoencoder(target)
    sides = " to ".join(" x ".join(map(str, shape)) for shape in (codec.picture, codec.shape))
    return f"an autoencoder, {sides}; give it to the import of a prior over its codes by --autoencoder={target}"


def over_codes(card: dict) -> dict:
    """The card with the autoencoder of --autoencoder. Raises ValueError where its codes are not the prior's."""
    if AUTOENCODER.value is None:
        return card
    found = di.weights.read_card(AUTOENCODER.value, "autoencoder")
    net = di.weights.cards.build_autoencoder(found["autoencoder"])
    height, width, channels = card["shape"]
    if channels != net.code_channels:
        raise ValueError(
            f"--autoencoder={AUTOENCODER.value} has codes of {net.code_channels} channels, the prior {channels}"
        )
    picture = [height * net.factor, width * net.factor, net.out_channels]
    card = {key: value for key, value in card.items() if key != "range"}
    told = {"autoencoder": found["name"], "sha256": found["sha256"], "picture": picture}
    return {**card, "layout": "HWC", "latent": told}


def told(card: dict, target: str) -> str:
    """Two lines on a prior that was imported."""
    trained = card["parametrisation"]["parametrisation"] + (
        ", learned variance" if card["parametrisation"].get("learned_variance") else ""
    )
    shape = " x ".join(map(str, card["shape"]))
    return (
        f"{shape}, {card.get('schedule', 'schedule unknown')}; predicts {trained}\n"
        f"weights: {card.get('ema')}; use it with --config.prior={target}"
    )


def verify(path: str) -> None:
    """Digest, parameter count and reference outputs of an imported checkpoint."""
    certifiable(di.weights.read_card(path, "prior"), path)
    params, card = di.weights.restore(path)
    deviation = di.weights.verify(card, computed(params, card))
    count = unet.parameter_count(params)
    print(f"{path}: sha256 and {count:,} parameters as on the card; reference outputs agree to {deviation:.1e}")


def judge(path: str, count: int) -> None:
    """`(V - var D) / MSE` of a consistency model over its own one-step samples, at the levels `NOISE`."""
    kind = di.weights.read_card(path, "prior")["parametrisation"]["parametrisation"]
    if kind != "boundary":
        raise ValueError(f"{path} predicts {kind!r} and samples in many steps; --ratio is for boundary, of one step")
    prior, (draw, noise) = di.weights.load_prior(path), jax.random.split(jax.random.key(0))
    one = lambda key: di.sample(key, di.samplers.renoise(prior), jnp.asarray([1.0, 0.0], jnp.float32)).x
    x0 = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(draw, count))
    at = jnp.asarray([di.times.from_sigma(prior.process, level) for level in NOISE], jnp.float32)
    ratios = np.asarray(jax.jit(denoising.mean_ratios)(noise, prior, x0, at))
    print(f"{path}: (V - var D) / MSE over {count} samples, where a posterior mean has 1 and an endpoint map 0")
    print(", ".join(f"{ratio:.2g} at {level:g}" for ratio, level in zip(ratios, NOISE, strict=True)))
    denoising.warn_of_ratios(ratios, NOISE)


def main(sources: list[str]) -> None:
    """What the command line asks for."""
    if DEMO.value:
        return demo(DEMO.value)
    if len(sources) != 1:
        raise ValueError(f"{len(sources)} sources were given; give one file or folder, see --help")
    if VERIFY.value:
        return verify(sources[0])
    if RATIO.value:
        return judge(sources[0], RATIO.value)
    if OUT.value is None:
        raise ValueError("give --out=DIR, the folder for the imported prior, or --verify")
    return convert(sources[0])


if __name__ == "__main__":
    runtime.run(main, positional=True)
