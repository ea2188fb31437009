"""Files of every kind, the presets, and what is refused: always one line that names the tensor and both values."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_parity import CONFIG, FIELDS, SCHEDULER, drawn

import diffinv as di
from diffinv.nn import song, unet
from diffinv.weights.convert import adm, edm, placing, public, torchfile, torchwrite

DDPM = {"heads": 1, "film": False, "resample_blocks": False, "resample_convs": True, "corner_padding": True}


@pytest.fixture(scope="module")
def state():
    return drawn("adm")[2].state


def assert_refused(call, *words, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    "preset, count",
    [
        pytest.param("ffhq256", 93_563_910, marks=pytest.mark.slow),
        pytest.param("imagenet256_uncond", 552_814_086, marks=pytest.mark.slow),
        pytest.param("imagenet256", 553_838_086, marks=pytest.mark.slow),
        pytest.param("imagenet64", 295_904_454, marks=pytest.mark.slow),
        pytest.param("imagenet128", 421_529_606, marks=pytest.mark.slow),
        pytest.param("imagenet512", 558_997_638, marks=pytest.mark.slow),
    ],
)
def test_published_networks_have_their_parameters(preset, count):
    fields = adm.PRESETS[preset]
    found = {**fields.visible, "in_channels": 3, "film": True, "resample_blocks": True}
    net = unet.UNet(**{k: v for k, v in adm.architecture_fields(found, fields).items() if k != "name"})
    assert unet.parameter_count(placing.shapes(net)) == count


def test_the_writer_is_read_back_and_by_torch_too(state, tmp_path):
    torchwrite.write_state_dict(tmp_path / "x.pt", state)
    found = torchfile.load(tmp_path / "x.pt")
    assert list(found) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value, strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.torch
def test_torch_reads_what_is_written_and_we_read_torch(state, tmp_path):
    torch = pytest.importorskip("torch")
    torchwrite.write_state_dict(tmp_path / "ours.pt", state)
    theirs = torch.load(tmp_path / "ours.pt", weights_only=True)
    for name, value in state.items():
        np.testing.assert_array_equal(theirs[name].numpy(), value, strict=True)
    torch.save({"ema": theirs, "step": 7}, tmp_path / "theirs.pt")
    found, which = placing.read_state(tmp_path / "theirs.pt")
    assert which == "ema" and list(found) == list(state)
    public.load_public(tmp_path / "theirs.pt")


@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors"])
def test_the_same_network_from_every_kind_of_file(kind, state, tmp_path):
    path = tmp_path / f"tiny_ema.{kind}"
    write = {
        "pt": torchwrite.write_state_dict,
        "npz": lambda p, s: np.savez(p, **s),
        "safetensors": lambda p, s: save_file(s, p),
    }
    write[kind](path, state)
    params, card = public.load_public(path)
    assert card["name"] == card["preset"] == "demo32" and card["shape"] == [32, 32, 3]
    assert card["parametrisation"] == {"parametrisation": "eps", "learned_variance": True}
    assert card["process"] == {"name": "discrete", "kind": "linear", "steps": 1000}
    assert card["range"] == [-1, 1] and card["layout"] == "HWC, RGB" and card["ema"] == "ema"
    assert card["source"]["file"] == path.name and len(card["source"]["sha256"]) == 64
    kernel = params["params"]["input_blocks_1_0"]["in_layers_2"]["kernel"]
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state["input_blocks.1.0.in_layers.2.weight"])


def test_a_file_of_several_state_dicts_needs_a_choice(state):
    tree = {"model": state, "ema": state, "step": 3}
    assert_refused(lambda: placing.choose(tree, None, "x.pt"), "x.pt", "model, ema", "--weights")
    assert_refused(lambda: placing.choose(tree, "emma", "x.pt"), "'emma'", "model, ema")
    assert placing.choose(tree, "ema", "x.pt")[1] == "ema"
    assert_refused(lambda: placing.choose({"step": 3}, None, "x.pt"), "none")


def changed(state, **changes):
    out = {**state, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in out.items() if value is not None}


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"middle_block__0__in_layers__2__weight": np.zeros((64, 48, 3, 3), np.float32)},
            ("middle_block.0.in_layers.2.weight", "(64, 48, 3, 3)", "(64, 64, 3, 3)"),
        ),
        ({"middle_block__1__qkv__bias": None}, ("middle_block.1.qkv.bias", "(192,)", "not in the checkpoint")),
        ({"extra__weight": np.zeros(3, np.float32)}, ("extra.weight", "(3,)", "1 tensors are left over")),
        ({"out__0__bias": np.full(32, np.nan, np.float32)}, ("out.0.bias", "not finite")),
        ({"input_blocks__0__0__weight": None}, ("no ADM U-Net", "input_blocks.0.0.weight")),
        ({"betas": np.linspace(0.0015, 0.0195, 1000)}, ("from 0.0015 to 0.0195", "from 0.0001 to 0.02")),
        (
            {"input_blocks__0__0__weight": np.zeros((32, 4, 3, 3), np.float32)},
            ("4 input and 6 output channels", "4 or 8"),
        ),
    ],
)
def test_a_changed_state_is_refused(change, words, state):
    assert_refused(lambda: adm.imported(changed(state, **change)), *words)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"preset": "ffhq256"}, ("channels = 32", "ffhq256 has 128")),
        ({"preset": "ffhq"}, ("'ffhq'", "known are ffhq256")),
        ({"schedule": "cosine"}, ("schedule is cosine", "trained with linear", "--preset=none")),
        ({"size": 64}, ("size is 64", "trained with 32")),
        ({"heads": 2}, ("(None, 2)", "(16, None)")),
        ({"new_attention_order": True}, ("new_attention_order is True", "False")),
        ({"preset": "none"}, ("--size", "--schedule", "--head_channels", "'channels': 32")),
        ({"preset": "none", "size": 8, "schedule": "linear", "heads": 2, "head_channels": 4}, ("--heads",)),
        ({"preset": "none", "size": 8, "schedule": "sine", "heads": 2}, ("sine",)),
    ],
)
def test_options_that_do_not_fit_are_refused_with_both_values(options, words, state):
    def call():
        found = adm.imported(state, **options)

        di.weights.cards.build_process(found.card["process"])

    assert_refused(call, *words)


def test_betas_that_fit_are_left_out(state):
    card = adm.imported({**state, "betas": np.linspace(1e-4, 0.02, 1000)}).card
    assert card["preset"] == "demo32"


@pytest.mark.parametrize("cut", [0, 4, 200, -1])
@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors"])
def test_half_a_file_is_one_line(kind, cut, state, tmp_path):
    few = {"input_blocks.0.0.weight": state["input_blocks.0.0.weight"]}
    path = tmp_path / f"x.{kind}"
    write = {
        "pt": torchwrite.write_state_dict,
        "npz": lambda p, s: np.savez(p, **s),
        "safetensors": lambda p, s: save_file(s, p),
    }
    write[kind](path, few)
    path.write_bytes(path.read_bytes()[:cut])
    assert_refused(lambda: public.load_public(path), str(path), "truncated or no")


def test_foreign_files_are_named(tmp_path):
    assert_refused(lambda: placing.read_state(tmp_path / "x.pt"), "no file", "x.pt", error=FileNotFoundError)
    (tmp_path / "x.gif").write_bytes(b"GIF89a")
    assert_refused(lambda: placing.read_state(tmp_path / "x.gif"), "'.gif'", ".safetensors")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert_refused(lambda: public.load_public(tmp_path / "x.npz"), "'a'", "input_blocks", "map_layer0", "conv_in")
    np.savez(tmp_path / "y.npz", **{"conv_in.weight": np.zeros(3)})
    assert_refused(lambda: public.load_public(tmp_path / "y.npz"), "folder", "config.json")


def test_a_pickle_is_never_opened(tmp_path):
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self):
            return open, (str(witness), "w")

    path = tmp_path / "edm-cifar10-32x32-uncond-vp.pkl"
    path.write_bytes(pickle.dumps({"ema": Evil()}))
    assert_refused(lambda: public.load_public(path), "runs code", "docs/bring-your-own-prior.md")
    np.savez(tmp_path / "x.npz", a=np.array([Evil()], object))
    assert_refused(lambda: public.load_public(tmp_path / "x.npz"), "no npz file of arrays")
    assert not witness.exists()


@pytest.fixture
def folder(tmp_path):
    """A diffusers model as it is downloaded."""
    state = drawn("diffusers")[2].state
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return tmp_path


def test_a_diffusers_folder(folder):
    card = public.load_public(folder, ema="no").card
    assert card["architecture"]["heads"] == 1 and card["architecture"]["corner_padding"] and card["ema"] == "no"
    assert card["architecture"]["eps"] == 1e-6 and not card["architecture"]["film"]
    assert card["process"]["kind"] == "linear" and card["process"]["beta_max"] == 0.02
    assert not card["parametrisation"]["learned_variance"] and card["source"]["family"].startswith("UNet2DModel")


@pytest.mark.parametrize(
    "file, change, words",
    [
        ("config.json", {"_class_name": "UNet2DConditionModel"}, ("UNet2DConditionModel", "UNet2DModel is supported")),
        ("config.json", {"act_fn": "gelu"}, ("act_fn = 'gelu'", "'silu'")),
        ("config.json", {"down_block_types": ["SkipDownBlock2D"]}, ("SkipDownBlock2D", "DownBlock2D")),
        ("config.json", {"block_out_channels": [128, 256]}, ("[32, 64]", "[128, 256]")),
        ("config.json", {"in_channels": 1}, ("in_channels = 3", "says 1")),
        ("config.json", {"sample_size": [8, 8]}, ("[8, 8]", "give a whole number")),
        ("scheduler_config.json", {"num_train_timesteps": 4000}, ("4000 steps", "1000")),
        ("scheduler_config.json", {"beta_schedule": "sigmoid"}, ("'sigmoid'", "scaled_linear")),
        ("scheduler_config.json", {"prediction_type": "flow"}, ("'flow'", "epsilon")),
        ("scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, ("ScoreSdeVeScheduler",)),
    ],
)
def test_a_diffusers_folder_that_does_not_fit(folder, file, change, words):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **change}))
    assert_refused(lambda: public.load_public(folder), *words)


def test_parts_of_a_diffusers_folder_that_are_missing(folder):
    (folder / "scheduler_config.json").unlink()
    assert_refused(lambda: public.load_public(folder), "scheduler_config.json", "--schedule", error=FileNotFoundError)
    assert public.load_public(folder, schedule="cosine").card["process"]["kind"] == "cosine"
    assert_refused(lambda: public.load_public(folder, heads=2), "heads given for a diffusers folder")
    (folder / "config.json").write_text("{")
    assert_refused(lambda: public.load_public(folder), "config.json is not JSON")
    (folder / "config.json").unlink()
    assert_refused(lambda: public.load_public(folder), "no file", "config.json", error=FileNotFoundError)


def test_an_edm_network_and_the_fields_beside_it(tmp_path):
    path = tmp_path / "edm-cifar10.npz"
    parameters = drawn("edm_ddpmpp")[2]
    unused = {"map_augment.weight": np.ones((16, 9), np.float32)}
    unused |= {"enc.4x4_down.conv0.resample_filter": np.full((1, 1, 2, 2), 0.25, np.float32)}
    np.savez(path, **{f"model.{name}": value for name, value in {**parameters.state, **unused}.items()})
    assert_refused(lambda: public.load_public(path), "no file", "edm-cifar10.json", error=FileNotFoundError)
    beside = tmp_path / "edm-cifar10.json"
    for change, words in (
        ({"class": "iDDPMPrecond"}, ("'iDDPMPrecond'", "known are EDMPrecond, VPPrecond, VEPrecond")),
        ({"M": 100}, ("M is 100", "1000")),
        ({"img_resolution": 64}, ("img_resolution = 64", "8")),
    ):
        beside.write_text(json.dumps({**FIELDS, **change}))
        assert_refused(lambda: public.load_public(path), *words)
    beside.write_text(json.dumps(FIELDS))
    card = public.load_public(path).card
    assert card["parametrisation"] == {"parametrisation": "edm", "sigma_data": 0.5} and card["shape"] == [8, 8, 3]
    assert card["architecture"]["taps"] == (1, 1) and card["architecture"]["attention"] == (4,)
    assert_refused(lambda: public.load_public(path, size=8), "size given for an EDM network")


def test_an_edm_network_of_another_architecture():
    state = dict(drawn("edm_ddpmpp")[2].state)
    value = state.pop("dec.8x8_up.conv0.weight")
    assert_refused(lambda: edm.imported(state, FIELDS), "dec.8x8_up.conv0.weight", str(value.shape))
    assert_refused(lambda: edm.imported({"a": value}, FIELDS), "'a'")


def test_edm_filters_are_read_from_their_buffers():
    f = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)[None, None] / 64
    assert edm._taps({"enc.4x4_down.conv0.resample_filter": f}, False) == (1, 3, 3, 1)
    assert edm._taps({}, True) == (1, 3, 3, 1) and edm._taps({}, False) == (1, 1)


@pytest.mark.parametrize(
    "net, count",
    [
        pytest.param(
            unet.UNet(192, (1, 2, 3, 4), 3, (2, 4, 8), classes=1000), 295_899_267, marks=pytest.mark.slow
        ),  # EDM's ADM, ImageNet 64
        pytest.param(
            song.SongUNet(), 55_732_739, marks=pytest.mark.slow
        ),  # EDM's DDPM++ for CIFAR-10; 55,733,891 with its augmentation labels
        (unet.UNet(128, (1, 2, 2, 2), 2, (2,), **DDPM), 35_746_307),  # google/ddpm-cifar10-32
        pytest.param(
            unet.UNet(128, (1, 1, 2, 2, 4, 4), 2, (16,), **DDPM), 113_673_219, marks=pytest.mark.slow
        ),  # celebahq-256
    ],
)
def test_other_published_networks_have_theirs(net, count):
    assert unet.parameter_count(placing.shapes(net)) == count


@pytest.mark.parametrize(
    "name, found", [("ddpm-ema-celebahq", 1), ("ema_0.9999_1000.pt", 1), ("cinema.pt", 0), ("x.pt", 0)]
)
def test_a_moving_average_is_recognised_by_its_name(name, found):
    assert bool(public.AVERAGED.search(name)) == found
