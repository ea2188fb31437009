"""Diffusion transformers of both codes as ours, block by block, to 1e-5; what is refused; a folder and a file."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from compiling import FAST

from diffinv import weights
from diffinv.nn import dit as network
from diffinv.weights import cards
from diffinv.weights.convert import diffusers, dit, public, safetensors

TOPOLOGY = {"width": 16, "blocks": 2, "heads": 2, "patch": 2, "out": 8, "classes": 5}
THEIRS = {"shift": 1, "eps_mlp": 1e-5}
CONFIG = {
    "_class_name": "DiTTransformer2DModel", "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4,
    "out_channels": 8, "num_layers": 2, "sample_size": 6, "patch_size": 2, "num_embeds_ada_norm": 4,
    "activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero", "norm_elementwise_affine": False,
    "norm_eps": 1e-5, "attention_bias": True, "dropout": 0.0, "upcast_attention": False, "norm_num_groups": 32,
}  # fmt: skip
X = np.random.default_rng(1).standard_normal((4, 6, 6)).astype(np.float32)
T, LABEL = 613.0, 3


def drawn(**changes):
    """(tensors under the official names, what the reference makes of `X`, its blocks)."""
    parameters = references.Parameters()
    out = references.dit(parameters, X, T, LABEL, **TOPOLOGY, **changes)
    return parameters.state, out, parameters.seen


def with_positions(state):
    return {**state, "pos_embed": references.positions(3, 16)[None].astype(np.float32)}


def renamed(state):
    """The official tensors as diffusers keeps them: q, k and v apart, the embeddings in every block."""
    back = {new: old for table in (dit.ENDS, dit.BLOCK) for old, new in table.items()}
    found = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        block, part = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+)", stem).groups()
        places = [f"transformer_blocks.{i}." for i in range(TOPOLOGY["blocks"])]
        own = [next((old for old, new in dit.EMBEDDINGS.items() if new == part), back.get(part, part))]
        if part == "attn.qkv":
            own = [f"attn1.to_{letter}" for letter in "qkv"]
        prefixes = places if part in dit.EMBEDDINGS.values() else [places[int(block)] if block else ""]
        for prefix in prefixes:
            for each, values in zip(own, np.split(value, len(own)), strict=True):
                found[f"{prefix}{each}.{leaf}"] = values
    return found


def relative(a, b):
    a = np.asarray(a)
    assert a.shape == b.shape
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("code", ["official", "diffusers"])
def test_an_imported_transformer_is_its_reference_block_by_block(code):
    state, out, layers = drawn(**(THEIRS if code == "diffusers" else {}))
    if code == "diffusers":
        params, card = dit.imported(renamed(state), CONFIG, {})
    else:
        params, card = dit.official(with_positions(state), heads=2)
    net = cards.build_network(card["architecture"])
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(leaf.size for leaf in state.values())
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}
    apply = jax.jit(lambda p, x: net.apply(p, x, jnp.float32(T), jnp.int32(LABEL), **capture), compiler_options=FAST)
    found, seen = apply(params, jnp.asarray(X.transpose(1, 2, 0)))
    assert relative(np.asarray(found).transpose(2, 0, 1), out) < 1e-5
    for block, value in layers.items():
        assert relative(np.asarray(seen["intermediates"][block.replace(".", "_")]["__call__"][0]).T, value) < 1e-5
    assert card["shape"] == [6, 6, 4] and card["given"] == {"label": 4} and card["parametrisation"]["learned_variance"]
    cards.require_card(card, "the card")


def test_what_the_two_codes_do_otherwise_is_far_outside_the_tolerance():
    """The frequencies of the time, and the order of q, k and v over the heads, take the same tensors."""
    out = drawn()[1]
    assert relative(drawn(shift=1)[1], out) > 1e-3 and 1e-7 < relative(drawn(eps_mlp=1e-5)[1], out)
    again = references.Parameters(state=drawn()[0])
    assert relative(references.dit(again, X, T, LABEL, **{**TOPOLOGY, "heads": 4}), out) > 1e-3


@pytest.mark.torch
def test_the_reference_is_diffusers_own_transformer():
    torch, library = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    state, out, _ = drawn(**THEIRS)
    model = library.DiTTransformer2DModel(**{key: value for key, value in CONFIG.items() if key[0] != "_"}).eval()
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in renamed(state).items()})
    with torch.no_grad():
        found = model(torch.from_numpy(X)[None], torch.tensor([T]), torch.tensor([LABEL])).sample[0]
    assert relative(found.numpy(), out) < 1e-5


def test_embeddings_that_differ_from_block_to_block_are_refused():
    state = renamed(drawn()[0])
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"
    with pytest.raises(ValueError, match=f"{re.escape(name)} differs from that of another block"):
        dit.imported({**state, name: state[name] + 1}, CONFIG, {})


WRONG = [
    ({"_class_name": "Transformer2DModel"}, "config.json has _class_name = 'Transformer2DModel'"),
    ({"activation_fn": "geglu"}, "config.json has activation_fn = 'geglu'; supported is 'gelu-approximate'"),
    ({"norm_elementwise_affine": True}, "config.json has norm_elementwise_affine = True"),
    ({"num_layers": 0}, "config.json.num_layers is 0"),
    ({"num_layers": 3}, "blocks.2.adaLN_modulation.1.weight of shape (96, 16) is not in the checkpoint"),
    ({"attention_head_dim": 4}, "has shape"),
    ({"num_attention_heads": 3, "attention_head_dim": 6}, "channels is 18; the positions take a multiple of 4"),
    ({"patch_size": 1}, "the architecture needs"),
]


@pytest.mark.parametrize("change, said", WRONG, ids=[" ".join(map(str, change)) + str(i) for i, (change, _) in
                                                     enumerate(WRONG)])  # fmt: skip
def test_another_transformer_is_one_line(change, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        dit.imported(renamed(drawn()[0]), {**CONFIG, **change}, {})
    assert "\n" not in str(error.value)


def test_what_shapes_hide_is_asked_for():
    """Heads; published sizes are known by their channels."""
    state = with_positions(drawn()[0])
    with pytest.raises(ValueError, match="the transformer has 16 channels, which no published one has; give --heads=N"):
        dit.official(state)
    with pytest.raises(ValueError, match="pos_embed is not in the checkpoint"):
        dit.official(drawn()[0], heads=2)
    assert {size: heads for _, size, heads in network.SIZES.values()}[1152] == 16


def test_a_file_and_a_folder_by_the_one_door(tmp_path):
    state = drawn()[0]
    file = tmp_path / "DiT.safetensors"
    file.write_bytes(safetensors.written(with_positions(state)))
    found = public.load_public(file, heads=2)
    assert found.card["source"]["family"].startswith("DiT") and found.card["layout"] == "HWC"
    assert "range" not in found.card
    inner = tmp_path / "pipeline" / "transformer"
    (tmp_path / "pipeline" / "scheduler").mkdir(parents=True)
    inner.mkdir()
    (inner / "diffusion_pytorch_model.safetensors").write_bytes(safetensors.written(renamed(state)))
    (inner / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match="scheduler_config.json"):
        public.load_public(tmp_path / "pipeline")
    (tmp_path / "pipeline/scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    other = public.load_public(tmp_path / "pipeline")
    jax.tree.map(np.testing.assert_array_equal, found.params, other.params)
    with pytest.raises(ValueError, match="schedule is cosine"):
        diffusers.read_scheduler(tmp_path / "pipeline", "cosine")
    prior = weights.build(*other)
    assert prior.shape == (6, 6, 4)
