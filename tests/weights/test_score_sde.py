"""score_sde's checkpoints: numbered modules become EDM's names, whose parity is known; the average finds its names."""

import numpy as np
import pytest
import references
from test_parity import EDM, FIELDS

from diffinv.weights.convert import edm, placing, public, score_sde

LEVEL = ["enc.8x8_block0", "enc.4x4_down"]
ORDER = {
    "ddpmpp": ["map_layer0", "map_layer1", "enc.8x8_conv", *LEVEL],
    "ncsnpp": ["map_noise", "map_layer0", "map_layer1", "enc.8x8_conv", *LEVEL, "enc.4x4_aux_residual"],
}
REST = ["enc.4x4_block0", "enc.4x4_block0*", "dec.4x4_in0", "dec.4x4_in0*", "dec.4x4_in1", "dec.4x4_block0"]
REST += ["dec.4x4_block1", "dec.4x4_block1*", "dec.8x8_up", "dec.8x8_block0", "dec.8x8_block1"]
REST += ["dec.8x8_aux_norm", "dec.8x8_aux_conv"]
"""Of a network of two levels of one block with attention (a star) at the lower, as their code appends its modules."""
INNER = {ours: theirs for theirs, ours in score_sde.BLOCK.items()}


def numbered(state, kind):
    """The same tensors as score_sde numbers and names them."""
    found = {"sigmas": np.geomspace(50, 0.01, 7).astype(np.float32)}
    for i, stem in enumerate(ORDER[kind] + REST):
        own = {name.removeprefix(f"{stem.strip('*')}."): value for name, value in state.items()}
        own = {name: value for name, value in own.items() if name not in state}
        attention = {name: value for name, value in own.items() if name.split(".")[0] in ("norm2", "qkv", "proj")}
        part = {}
        if stem.endswith("*"):
            q, k, v = (attention["qkv.weight"].reshape(-1, 3, attention["qkv.weight"].shape[1])[:, j] for j in range(3))
            biases = attention["qkv.bias"].reshape(-1, 3)
            part = {f"NIN_{j}.W": each.T for j, each in enumerate((q, k, v))}
            part |= {f"NIN_{j}.b": biases[:, j] for j in range(3)}
            part |= {"NIN_3.W": attention["proj.weight"].reshape(q.shape[1], -1).T, "NIN_3.b": attention["proj.bias"]}
            part |= {f"GroupNorm_0.{leaf}": attention[f"norm2.{leaf}"] for leaf in ("weight", "bias")}
        elif stem == "map_noise":
            part = {"W": own["freqs"]}
        elif "aux_residual" in stem:
            part = {f"Conv2d_0.{leaf}": own[leaf] for leaf in ("weight", "bias")}
        else:
            for name, value in own.items():
                if name not in attention:
                    inner, _, leaf = name.partition(".")
                    part[f"{INNER[inner]}.{leaf}" if leaf else name] = value
        found |= {f"all_modules.{i}.{name}": np.asarray(value, np.float32) for name, value in part.items()}
    return found


@pytest.fixture(scope="module", params=["ddpmpp", "ncsnpp"])
def drawn(request):
    """(kind, EDM's state of a network that `test_parity` holds against the published algorithm, the same numbered)."""
    parameters = references.Parameters()
    x = np.random.default_rng(1).standard_normal((3, 8, 8)).astype(np.float32)
    references.edm(parameters, x, 0.7, **EDM, kind=request.param)
    return request.param, parameters.state, numbered(parameters.state, request.param)


def test_the_numbers_are_given_back_their_names(drawn):
    kind, state, theirs = drawn
    found = score_sde.to_edm({name: value for name, value in theirs.items() if name != "sigmas"}, 8)
    assert found.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(found[name].reshape(value.shape), np.asarray(value, np.float32), err_msg=name)


def test_the_prior_is_edms_under_the_noise_that_the_embedding_tells(drawn):
    """Noise is twice as large on [-1, 1] as on their [0, 1]."""
    kind, state, theirs = drawn
    params, card = score_sde.imported({f"module.{name}": value for name, value in theirs.items()}, 8)
    preconditioning = {"ddpmpp": "VPPrecond", "ncsnpp": "VEPrecond"}[kind]
    expected = edm.imported(state, {**FIELDS, "class": preconditioning})
    for path, leaf in placing.traverse_util.flatten_dict(expected.params).items():
        np.testing.assert_array_equal(placing.traverse_util.flatten_dict(params)[path], leaf)
    assert card["architecture"] == expected.card["architecture"]
    noise = {"name": "VE", "sigma_min": 0.02, "sigma_max": 100.0}
    assert card["process"] == (noise if kind == "ncsnpp" else {"name": "VP", "beta_min": 0.1, "beta_max": 20.0})


def test_a_file_of_model_and_average(drawn, tmp_path, monkeypatch):
    """The average is a list in the model's order, of what was trained."""
    kind, _, theirs = drawn
    model = {f"module.{name}": value for name, value in theirs.items()}
    names = [name for name in model if not name.endswith(("sigmas", ".W")) or model[name].ndim > 1]
    tree = {"model": model, "ema": {"decay": 0.999, "shadow_params": [2 * model[name] for name in names]}, "step": 7}
    path = tmp_path / "checkpoint_8.pth"
    path.write_bytes(b"read by `torchfile`, whose own test reads lists")
    monkeypatch.setattr(placing.torchfile, "load", lambda path, limit: tree)
    with pytest.raises(ValueError, match="the state dicts in .* are: model, ema; choose one by --weights"):
        public.load_public(path, size=8)
    averaged = public.load_public(path, "ema", size=8)
    plain = public.load_public(path, "model", size=8)
    first = lambda found: found.params["params"]["map_layer0"]["kernel"]
    np.testing.assert_array_equal(first(averaged), 2 * first(plain))
    assert averaged.card["ema"] == "ema" and plain.card["ema"] == "not said by the file"
    assert averaged.card["source"]["family"].endswith({"ncsnpp": "NCSN++", "ddpmpp": "DDPM++"}[kind])
    with pytest.raises(ValueError, match="give --size"):
        public.load_public(path, "ema")
    with pytest.raises(ValueError, match="of two runs"):
        placing.averaged({**tree, "ema": {"shadow_params": tree["ema"]["shadow_params"][1:]}})
    assert placing.averaged({"model": model}) == placing.averaged({"ema": tree["ema"]}) == {}


def test_other_networks_are_refused(drawn):
    _, _, theirs = drawn
    cut = {
        name: value
        for name, value in theirs.items()
        if not name.startswith(f"all_modules.{len(ORDER[drawn[0]]) + 12}.")
    }
    cases = {
        "ends before its aux_conv": cut,
        "1 modules are left over": {**theirs, "all_modules.99.weight": np.ones((3, 3), np.float32)},
        "a network of another `progressive`": {
            **theirs,
            f"all_modules.{len(ORDER[drawn[0]])}.Dense_9.bias": np.ones(3),
        },
        "b.weight is no tensor of score_sde": {**theirs, "b.weight": np.ones(3, np.float32)},
        "no residual block of these halves": {n: v for n, v in theirs.items() if "Conv_2" not in n},
        "ends where an embedding is expected": {"all_modules.0.weight": np.ones((3, 3), np.float32)},
    }
    for words, state in cases.items():
        with pytest.raises(ValueError, match=words):
            score_sde.imported(state, 8)
