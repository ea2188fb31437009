"""Imported networks against `references`, layer by layer, to 1e-5; and the parameters of the published files."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from compiling import FAST

from diffinv import times, weights
from diffinv.nn import unet
from diffinv.weights.convert import adm, diffusers, edm

ADM = {"channels": 32, "mult": (1, 2), "blocks": 1, "attention": (2,), "out": 6}
HIDDEN = {"size": 8, "schedule": "linear"}
DIFFUSERS = {"widths": (32, 64), "blocks": 1, "down": (0, 1), "up": (1, 0), "groups": 32}
CONFIG = {
    "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": [32, 64],
    "layers_per_block": 1, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "act_fn": "silu",
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": None, "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "norm_num_groups": 32, "center_input_sample": False,
    "mid_block_scale_factor": 1, "time_embedding_type": "positional",
}  # fmt: skip
SCHEDULER = {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
EDM = {"resolution": 8, "channels": 16, "mult": (1, 2), "blocks": 1, "attention": (4,)}
FIELDS = {"class": "EDMPrecond", "img_resolution": 8, "sigma_data": 0.5}


def import_adm(options):
    return lambda state: adm.imported(state, **HIDDEN, **options)


def import_diffusers(**changes):
    return lambda state: diffusers.imported(state, {**CONFIG, **changes}, SCHEDULER)


def import_edm(**fields):
    prefixed = lambda state: {f"model.{name}": value for name, value in state.items()}
    return lambda state: edm.imported(prefixed(state), {**FIELDS, **fields})


heads = lambda width: lambda channels: channels // width

CASES = {
    "adm": (references.adm, {**ADM, "heads": heads(16)}, adm.imported),
    "adm_new_order_labels": (
        references.adm,
        {
            **ADM,
            "heads": lambda c: 4,
            "order": "new",
            "classes": 5,
            "label": 3,
            "mult": (0.5, 1),
            "channels": 64,
            "out": 3,
        },
        import_adm({"heads": 4, "new_attention_order": True}),
    ),
    "diffusers": (references.diffusers, DIFFUSERS, import_diffusers()),
    "diffusers_heads_old_names": (
        references.diffusers,
        {**DIFFUSERS, "head_channels": 16, "padding": 1, "groups": 8, "old": True},
        import_diffusers(attention_head_dim=16, downsample_padding=1, norm_num_groups=8),
    ),
    "edm_ddpmpp": (references.edm, EDM, import_edm()),
    "edm_ncsnpp_labels": (references.edm, {**EDM, "kind": "ncsnpp", "classes": 4, "label": 1}, import_edm()),
    "edm_adm_labels": (
        references.edm,
        {**EDM, "kind": "adm", "head_channels": 8, "classes": 4, "label": 1},
        import_edm(channels_per_head=8),
    ),
}
SLOW = {"adm_new_order_labels", "edm_ddpmpp", "diffusers_heads_old_names", "edm_ncsnpp_labels", "edm_adm_labels"}
cases = pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])


@functools.cache
def drawn(name):
    """(input (C, H, W), condition, parameters of the reference, its output)."""
    reference, options, _ = CASES[name]
    x = np.random.default_rng(1).standard_normal((3, 8, 8)).astype(np.float32)
    t = 0.7 if reference is references.edm else 613.0
    parameters = references.Parameters()
    return x, t, parameters, reference(parameters, x, t, **options)


def modules(name, parameters):
    """For each layer of the reference the Flax module that ends it: by what its tensors were renamed to."""
    names = {old: np.array(old) for old in parameters.state}
    if CASES[name][0] is references.diffusers:
        names = {new: old for new, old in diffusers._renamed(names, 1)}
    elif CASES[name][1].get("kind") == "adm":
        names = edm.to_adm(names)
    ends = {}
    for layer in parameters.seen:
        new = [new for new, old in names.items() if str(old).startswith(f"{layer}.")]
        ends[layer] = max(re.match(r"((in|out)put_blocks|middle_block)(\.\d+)+|\w+\.\w+", n)[0] for n in new)
    return {layer: end.replace(".", "_") for layer, end in ends.items()}


def relative(a, b):
    assert a.shape == b.shape
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def network(card):
    fields = {key: value for key, value in card["architecture"].items() if key != "name"}
    return weights.cards.ARCHITECTURES[card["architecture"]["name"]](**fields)


@cases
def test_imported_networks_are_their_references_layer_by_layer(name):
    x, t, parameters, out = drawn(name)
    label = CASES[name][1].get("label")
    params, card = CASES[name][2](parameters.state)
    net = network(card)
    assert unet.parameter_count(params) == sum(value.size for value in parameters.state.values())
    options = {} if label is None else {"label": jnp.asarray(label, jnp.int32)}
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}
    apply = jax.jit(lambda p, x, t: net.apply(p, x, t, **options, **capture), compiler_options=FAST)
    found, state = apply(params, jnp.asarray(x.transpose(1, 2, 0)), jnp.float32(t))
    seen = state["intermediates"]
    for layer, module in modules(name, parameters).items():
        value = np.asarray(seen[module]["__call__"][0])
        assert relative(value.transpose(2, 0, 1), parameters.seen[layer]) < 1e-5, (layer, module)
    assert relative(np.asarray(found).transpose(2, 0, 1), out) < 1e-5


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_the_references_are_what_torch_computes(name):
    torch = pytest.importorskip("torch")
    x, t, parameters, out = drawn(name)
    reference, options, _ = CASES[name]
    theirs = references.Parameters(ops=references.torch_ops(torch), state=parameters.state)
    np.testing.assert_allclose(reference(theirs, x, t, **options), out, rtol=1e-9, atol=1e-11)
    assert theirs.seen.keys() == parameters.seen.keys()


@pytest.mark.torch
def test_imported_adm_in_torch_modules_is_the_reference():
    """`benchmarks.torch_unet`, a network of `torch.nn` modules, whose groups are ADM's from 128 channels on."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_unet

    x, t, _, _ = drawn("adm")
    parameters = references.Parameters()
    out = references.adm(parameters, x, t, **{**ADM, "channels": 128, "heads": heads(64)})
    params, card = adm.imported(parameters.state, size=8, schedule="linear", head_channels=64)
    found = torch_unet.load(params, network(card))(torch.from_numpy(x)[None], torch.tensor([t]))[0]
    assert relative(found.numpy(), out) < 1e-5


@pytest.mark.parametrize("wrong", [{"order": "new"}, {"order": "edm"}, {"heads": heads(8)}, {"heads": heads(32)}])
def test_what_shapes_hide_is_far_outside_the_tolerance(wrong):
    """Each of these takes the same tensors, and is another network."""
    x, t, parameters, out = drawn("adm")
    again = references.Parameters(state=parameters.state)
    assert relative(references.adm(again, x, t, **{**CASES["adm"][1], **wrong}), out) > 1e-3
    assert again.state.keys() == parameters.state.keys()


@pytest.mark.slow
def test_groups_of_adm_are_always_32():
    x, t, parameters, out = drawn("adm")
    params, card = adm.imported(parameters.state)
    apply = jax.jit(network(card).clone(smallest_group=4).apply, compiler_options=FAST)
    found = apply(params, jnp.asarray(x.transpose(1, 2, 0)), jnp.float32(t))
    assert relative(np.asarray(found).transpose(2, 0, 1), out) > 1e-3


def preconditioned(kind, network, x, sigma):
    """Karras et al. 2022, table 1, of x = x_0 + sigma noise; VP by `sigma_inv`, whose time is multiplied by M - 1."""
    if kind == "VPPrecond":
        time = (np.sqrt(0.1**2 + 2 * 19.9 * np.log(1 + sigma**2)) - 0.1) / 19.9
        return x - sigma * network(x / np.sqrt(sigma**2 + 1), 999 * time)
    return x + sigma * network(x, np.log(0.5 * sigma))


@pytest.mark.parametrize("kind", ["VPPrecond", "VEPrecond"])
@pytest.mark.parametrize("name", ["edm_ddpmpp", pytest.param("edm_adm_labels", marks=pytest.mark.slow)])
def test_other_preconditionings_give_their_denoisers(kind, name):
    x, _, parameters, _ = drawn(name)
    options = CASES[name][1]
    network = lambda x, t: references.edm(references.Parameters(state=parameters.state), x, t, **options)
    told = {"class": kind, "channels_per_head": 8, "beta_d": 19.9, "beta_min": None, "sigma_max": 100, "M": 1000}
    params, card = import_edm(**told)(parameters.state)
    given = {"given": {"label": options["label"]}} if "label" in options else {}
    prior = weights.build(params, {**card, **given})
    denoise = jax.jit(lambda x, t: prior.denoise(x, t), compiler_options=FAST)
    for sigma in (0.3, 5.0):
        t = times.from_sigma(prior.process, sigma)
        alpha = np.asarray(prior.process.alpha(t), np.float32)
        noisy = np.float32(sigma * x)
        found = denoise(jnp.asarray(alpha * noisy.transpose(1, 2, 0)), t.astype(jnp.float32))
        assert relative(np.asarray(found).transpose(2, 0, 1), preconditioned(kind, network, noisy, sigma)) < 1e-4
