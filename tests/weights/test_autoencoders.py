"""diffusers' autoencoders as ours, layer by layer, to 1e-5; cards of autoencoders and of priors over their codes."""

import copy
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from compiling import FAST

from diffinv import codec, weights
from diffinv.nn import autoencoder
from diffinv.weights import cards
from diffinv.weights.convert import autoencoder as convert

CONFIG = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [8, 12], "layers_per_block": 1,
    "in_channels": 3, "out_channels": 3, "latent_channels": 2, "norm_num_groups": 4, "sample_size": 8,
    "scaling_factor": 0.5, "shift_factor": 0.25, "force_upcast": True,
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
}  # fmt: skip
TOPOLOGY = {"widths": (8, 12), "blocks": 1, "codes": 2, "groups": 4}
CASES = {
    "as_stable_diffusion": ({}, {}),
    "old_names": ({"old": True}, {}),
    "no_attention_no_quant": (
        {"attention": False, "quant": False},
        {"mid_block_add_attention": False, "use_quant_conv": False, "use_post_quant_conv": False},
    ),
}
PICTURE = np.random.default_rng(1).standard_normal((3, 8, 12)).astype(np.float32)


def drawn(name="as_stable_diffusion"):
    """(tensors, what the reference makes of `PICTURE`, its layers)."""
    parameters = references.Parameters()
    return parameters.state, references.autoencoder(parameters, PICTURE, **TOPOLOGY, **CASES[name][0]), parameters.seen


def imported(name="as_stable_diffusion", **changes):
    return convert.imported(drawn(name)[0], {**CONFIG, **CASES[name][1], **changes})


def relative(a, b):
    """Of a picture, channels last, to one with channels first."""
    a = np.asarray(a).transpose(2, 0, 1)
    assert a.shape == b.shape
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "old_names" else n for n in CASES])
def test_an_imported_autoencoder_is_its_reference_layer_by_layer(name):
    state, (mean, log_variance, out), layers = drawn(name)
    params, card = imported(name)
    net = cards.build_autoencoder(card["autoencoder"])
    assert sum(leaf.size for leaf in jax.tree.leaves(params["params"])) == sum(leaf.size for leaf in state.values())
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}
    variables, x = {"params": params["params"]}, jnp.asarray(PICTURE.transpose(1, 2, 0))
    both = lambda v, x: (net.apply(v, x, method="encode"), net.apply(v, x, **capture))
    (code, variance), (decoded, seen) = jax.jit(both, compiler_options=FAST)(variables, x)
    assert relative(code, mean) < 1e-5 and relative(variance, log_variance) < 1e-5 and relative(decoded, out) < 1e-5
    assert len(layers) == (12 if name == "no_attention_no_quant" else 14)
    for layer, value in layers.items():
        half, place = layer.split(".", 1)
        found = seen["intermediates"][half][place.replace(".", "_")]["__call__"][0]
        assert relative(found, value) < 1e-5, layer


@pytest.mark.torch
def test_the_reference_is_diffusers_own():
    """`AutoencoderKL` with the tensors of the reference; and Stable Diffusion's has the size that ours has."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    state, (mean, log_variance, out), _ = drawn()
    model = diffusers.AutoencoderKL(**{key: value for key, value in CONFIG.items() if key[0] != "_"}).eval()
    model.load_state_dict({name: torch.from_numpy(value).reshape(model.state_dict()[name].shape)
                           for name, value in state.items()})  # fmt: skip
    with torch.no_grad():
        law = model.encode(torch.from_numpy(PICTURE)[None]).latent_dist
        decoded = model.decode(law.mean).sample
    for theirs, ours in ((law.mean, mean), (law.logvar, log_variance), (decoded, out)):
        np.testing.assert_allclose(theirs[0].numpy(), ours, atol=1e-5 * np.abs(ours).max())
    sizes = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    blocks = {
        "down_block_types": CONFIG["down_block_types"][:1] * 4,
        "up_block_types": CONFIG["up_block_types"][:1] * 4,
    }
    with torch.device("meta"):
        large = diffusers.AutoencoderKL(**sizes, **blocks)
    assert sum(p.numel() for p in large.parameters()) == 83_653_863


def test_codes_are_those_of_a_pipeline():
    """diffusers' pipelines diffuse `(mean - shift_factor) scaling_factor`, and scale back before they decode."""
    params, card = imported()
    found = codec.Codec(params, cards.build_autoencoder(card["autoencoder"]), (8, 12, 3))
    mean, _, out = drawn()[1]
    both = jax.jit(lambda found, x: (found.encode(x), found.decode(found.encode(x))), compiler_options=FAST)
    z, decoded = both(found, jnp.asarray(PICTURE.transpose(1, 2, 0)))
    assert relative(z, (mean - 0.25) * 0.5) < 1e-5 and relative(decoded, out) < 1e-5


def test_what_the_config_does_not_say_is_diffusers_default():
    fields = convert.section({})
    assert fields == {"channels": 64, "multipliers": [1], "blocks": 1, "code_channels": 4, "out_channels": 3,
                      "groups": 32, "attention": True, "quant": True, "post_quant": True}  # fmt: skip
    assert convert.section({"block_out_channels": [64, 96]})["multipliers"] == [1, 1.5]


WRONG = [
    ({"_class_name": "VQModel"}, "config.json has _class_name = 'VQModel'; supported is 'AutoencoderKL'"),
    ({"act_fn": "gelu"}, "config.json has act_fn = 'gelu'; supported is 'silu'"),
    ({"latents_mean": [0.0]}, "config.json has latents_mean = [0.0]; supported is None"),
    ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "config.json.down_block_types is"),
    ({"scaling_factor": 0}, "config.json.scaling_factor is 0"),
    ({"out_channels": 1}, "config.json has other in_channels than out_channels"),
    ({"norm_num_groups": 5}, "the checkpoint's autoencoder.channels make a norm of 12 channels"),
    ({"latent_channels": 3}, "encoder.conv_out.weight has shape (4, 12, 3, 3), the architecture needs (6, 12, 3, 3)"),
    ({"mid_block_add_attention": False}, "has no place in the network"),
    ({"block_out_channels": [8, 12, 12]}, "is not in the checkpoint"),
]


@pytest.mark.parametrize("change, said", WRONG, ids=[next(iter(change)) for change, _ in WRONG])
def test_another_topology_is_one_line(change, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        imported(**change)
    assert "\n" not in str(error.value)


@pytest.fixture
def saved(tmp_path):
    """An autoencoder, and a prior over its codes that names it."""
    params, card = imported()
    digest = weights.save(str(tmp_path / "coder"), params, {**card, "name": "coder"})["sha256"]
    fields = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 8, "out_channels": 2}
    told = {
        "name": "codes", "architecture": {"name": "unet", **fields}, "shape": [4, 4, 2], "process": {"name": "EDM"},
        "parametrisation": {"parametrisation": "edm", "sigma_data": 1.0},
        "latent": {"autoencoder": "coder", "sha256": digest, "picture": [8, 8, 3]},
    }  # fmt: skip
    shapes = cards.expected_shapes(told)
    flat = {name: np.full(shape, 0.01, np.float32) for name, shape in shapes.items()}
    weights.save(str(tmp_path / "codes"), weights.unflatten(flat), told)
    return tmp_path


def change(path: Path, name: str, value):
    card = json.loads(path.with_suffix(".json").read_text())
    *inside, last = name.split(".")
    (card[inside[0]] if inside else card)[last] = value
    path.with_suffix(".json").write_text(json.dumps(card))


def test_a_saved_autoencoder_is_the_same(saved):
    params, card = imported()
    found = weights.load_autoencoder(str(saved / "coder"))
    jax.tree.map(np.testing.assert_array_equal, found.params, jax.tree.map(jnp.asarray, params))
    assert found.net == autoencoder.AutoencoderKL(**{**card["autoencoder"], "multipliers": (1, 1.5)})
    assert found.picture == (8, 8, 3) and found.shape == (4, 4, 2)
    assert weights.load_autoencoder(str(saved / "coder"), (16, 8, 3)).shape == (8, 4, 2)
    assert weights.load_autoencoder(str(saved / "coder"), plain_conv=True).net.plain_conv


def test_a_latent_prior_finds_its_autoencoder(saved):
    found = weights.load_latent(str(saved / "codes"))
    assert found.shape == (8, 8, 3) and found.prior.shape == (4, 4, 2) == found.codec.shape
    assert weights.load_prior(str(saved / "codes")).shape == (4, 4, 2)
    for end in (".json", ".safetensors"):
        (saved / f"coder{end}").rename(saved / f"other{end}")
    with pytest.raises(FileNotFoundError, match="coder.json"):
        weights.load_latent(str(saved / "codes"))
    assert weights.load_latent(str(saved / "codes"), autoencoder=str(saved / "other")).codec.shape == (4, 4, 2)


def test_an_autoencoder_of_other_codes_is_refused(saved):
    params, card = imported()
    weights.save(str(saved / "coder"), jax.tree.map(lambda leaf: leaf + 1, params), {**card, "name": "coder"})
    with pytest.raises(ValueError, match="its codes are others; copy the autoencoder"):
        weights.load_latent(str(saved / "codes"))


def test_kinds_are_told_apart_of_autoencoders(saved):
    coder, codes = str(saved / "coder"), str(saved / "codes")
    assert (
        cards.kind_of(weights.read_card(coder)) == "autoencoder" and cards.kind_of(weights.read_card(codes)) == "prior"
    )
    with pytest.raises(ValueError, match="is of an autoencoder, and prior is wanted.*load_autoencoder"):
        weights.load_prior(coder)
    with pytest.raises(ValueError, match="is of a prior, and autoencoder is wanted"):
        weights.load_autoencoder(codes)
    with pytest.raises(ValueError, match="is a prior over pictures: its card names no autoencoder"):
        weights.load_latent(weights.embedded())
    with pytest.raises(ValueError, match="changes to .*autoencoder"):
        weights.amend(coder, {"autoencoder": {}})


BAD = [
    ("coder", "autoencoder.channels", 7, "card.autoencoder.channels make a norm"),
    ("coder", "autoencoder.evil", 1, "card.autoencoder has no field 'evil'"),
    ("coder", "autoencoder.code_channels", 3, "of one export"),
    ("coder", "autoencoder", 5, "card.autoencoder is 5"),
    ("coder", "shape", [7, 8, 3], "card.shape is [7, 8, 3]; give (H, W, 3) with sides that are multiples of 2"),
    ("coder", "shape", [8, 8, 1], "card.shape is [8, 8, 1]"),
    ("coder", "version", 99, "card.version is 99"),
    ("codes", "latent.autoencoder", "../coder", "card.latent.autoencoder is '../coder'"),
    ("codes", "latent.picture", [8, 8], "card.latent.picture is [8, 8]"),
    ("codes", "latent", {"autoencoder": "coder"}, "card.latent"),
    ("codes", "latent.picture", [16, 16, 3], "prior is of shape (4, 4, 2) and the codes are (8, 8, 2)"),
]


@pytest.mark.parametrize(
    "which, name, value, said", BAD, ids=[f"{name}={str(value)[:20]}" for _, name, value, _ in BAD]
)
def test_a_wrong_card_is_one_line(saved, which, name, value, said):
    change(saved / which, name, copy.deepcopy(value))
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        weights.load_latent(str(saved / "codes"))
    assert "\n" not in str(error.value)
