"""The table of denoisers: closed forms of Gaussian priors, of noise, and of a grey picture by a prior of colours."""

import json
import re
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from flax import struct
from PIL import Image

import diffinv as di
from diffinv import process, schema, weights
from diffinv.nn import convnet, unet
from experiments.tables import denoising, published
from experiments.upscale import baselines


@struct.dataclass
class Shrunk:
    """`E[x_0 | x_t]` of pixels N(0, deviation^2); `equal`: of the channels' mean alone, which all channels have."""

    process: process.Process
    deviation: float
    equal: bool = struct.field(pytree_node=False, default=False)

    def __call__(self, x, t):
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        if self.equal:
            x, sigma = jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape), sigma / jnp.sqrt(x.shape[-1])
        return alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2) * x


def prior(kind=process.EDM, deviation=0.2, equal=False):
    forward = kind()
    return di.Prior(forward, Shrunk(forward, deviation, equal), (8, 8, 3))


def case(truth, sigma, seed=0):
    noise = np.random.default_rng(seed).standard_normal(truth.shape)
    return denoising.Case("made", truth, truth + sigma * noise)


@pytest.mark.parametrize("kind", [process.EDM, process.VP, process.Flow], ids=lambda kind: kind.__name__)
def test_a_gaussian_priors_psnr_is_wieners(kind):
    """Of pixels N(0, s^2) on [-1, 1] in noise r = 2 sigma / 255, the error is s^2 r^2 / (s^2 + r^2), whatever the
    process; over n pixels it is known to sqrt(2 / n)."""
    sigma, s, shape = 40.0, 0.2, (96, 90, 3)
    truth = 127.5 * (1 + s * np.random.default_rng(1).standard_normal(shape))
    made, r = case(truth, sigma), sigma / 127.5
    x = denoising.one_step(prior(kind, s))(made.y, sigma)
    share = s**2 / (s**2 + r**2)
    np.testing.assert_allclose(x, 127.5 + share * (made.y - 127.5), atol=2e-3)
    psnr = denoising.Kept("")(denoising.Method(lambda y, sigma: x), "", made, sigma)[0]
    expected = 10 * np.log10(4 / (share * r**2))
    assert abs(psnr - expected) < 5 * 10 / np.log(10) * np.sqrt(2 / truth.size)


def test_what_changes_nothing_has_the_psnr_of_the_noise_which_is_clipped_alone():
    truth = np.full((64, 64, 3), 127.0)
    made = case(truth, 10.0)
    psnr, ssim = denoising.Kept("")(denoising.classical()["noise"], "noise", made, 10.0)
    np.testing.assert_allclose(psnr, 20 * np.log10(255) - 10 * np.log10(np.mean((made.y - truth) ** 2)), rtol=1e-6)
    assert abs(psnr - 20 * np.log10(255 / 10)) < 5 * 10 / np.log(10) * np.sqrt(2 / truth.size) and 0 < ssim < 0.5
    black = case(np.zeros((64, 64, 3)), 10.0)
    clipped = denoising.Kept("")(denoising.Method(lambda y, sigma: y), "noise", black, 10.0)[0]
    np.testing.assert_allclose(clipped, 20 * np.log10(255) - 10 * np.log10(np.mean(np.maximum(black.y, 0) ** 2)))


def test_a_grey_picture_is_denoised_by_its_own_law():
    """Of three equal channels N(0, s^2): the result is the grey Wiener filter's, whatever noise was drawn beside."""
    sigma, s = 40.0, 0.2
    y = 127.5 * (1 + np.random.default_rng(0).standard_normal((9, 7, 1)))
    x = denoising.lifted(denoising.one_step(prior(deviation=s, equal=True)), draws=2)(y, sigma)
    np.testing.assert_allclose(x, 127.5 + s**2 / (s**2 + (sigma / 127.5) ** 2) * (y - 127.5), atol=5e-3)


def test_the_lifted_noise_is_white_in_three_channels_and_keeps_the_grey_value():
    seen = []
    y = 100 + 20 * np.random.default_rng(5).standard_normal((200, 200, 1))
    denoising.lifted(lambda x, wide: (seen.append((x, wide)), x)[1], draws=1)(y, 20.0)
    (x, wide) = seen[0]
    np.testing.assert_allclose(x.mean(-1, keepdims=True), y, atol=1e-10)
    np.testing.assert_allclose(wide, 20 * np.sqrt(3))
    covariance = np.cov(x.reshape(-1, 3).T)
    np.testing.assert_allclose(covariance, wide**2 * np.eye(3), atol=5 * wide**2 * np.sqrt(2 / 40_000))


def test_a_network_of_one_size_works_on_tiles():
    """What treats every pixel alone gives on tiles what it gives on the whole, of smaller pictures too."""
    for shape in ((19, 30, 3), (3, 5, 3), (8, 9, 3)):
        y = np.random.default_rng(0).uniform(0, 255, shape)
        whole, tiled = denoising.one_step(prior())(y, 25.0), denoising.one_step(prior(), 8)(y, 25.0)
        np.testing.assert_allclose(tiled, whole, atol=2e-3)
    x = np.arange(15.0).reshape(3, 5, 1)
    padded = denoising.reflected(x, 4)
    assert padded.shape == (4, 5, 1) and (denoising.reflected(x, 3) == x).all()
    np.testing.assert_array_equal(padded[3], x[2])


@pytest.mark.parametrize("kind", ["any size", "one size", "grey", "not square"])
def test_a_checkpoint_is_asked_as_its_network_allows(tmp_path, kind):
    """Drawn weights of a last layer at 0: all that is left is the preconditioning's x s^2 / (s^2 + r^2)."""
    channels, shape = (1 if kind == "grey" else 3), (16, 24) if kind == "not square" else (16, 16)
    fields = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "patch": 2, "out_channels": channels}
    name, net = ("conv", convnet.ConvUNet) if kind in ("any size", "grey") else ("unet", unet.UNet)
    more = {} if name == "conv" else {"attention": [], "head_channels": 8}
    built = net(**{key: tuple(v) if isinstance(v, list) else v for key, v in {**fields, **more}.items()})
    init = jax.jit(built.init, compiler_options=FAST)
    params = jax.tree.map(np.asarray, init(jax.random.key(0), jnp.zeros((*shape, channels)), jnp.zeros(())))
    card = {
        "name": "made",
        "architecture": {"name": name, **fields, **more},
        "parametrisation": {"parametrisation": "edm", "sigma_data": 0.5},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "shape": [*shape, channels],
    }
    weights.save(str(tmp_path / "made"), params, card)
    if kind == "not square":
        with pytest.raises(ValueError, match="--prior is of pictures of 16 x 24"):
            denoising.loaded(str(tmp_path / "made"))
        return
    rows, found = denoising.loaded(str(tmp_path / "made"))
    y = np.random.default_rng(0).uniform(0, 255, (21, 17, channels))
    expected = 127.5 + 0.25 / (0.25 + (40 / 127.5) ** 2) * (y - 127.5)
    for name in (denoising.OURS, denoising.EIGHT):
        np.testing.assert_allclose(rows[name](y, 40.0), expected, atol=5e-3)
    assert found == channels and len(rows) == 2


def made_dncnn():
    """Torch names: middle weights hand on the first feature, 2 y, and the noise is a quarter of it and 0.1."""
    first, middle, last = np.zeros((3, 3, 1, 2)), np.zeros((3, 3, 2, 2)), np.zeros((3, 3, 2, 1))
    first[1, 1, 0, 0], middle[1, 1, 0, 0], last[1, 1, 0, 0] = 2, 1, 0.25
    kernels = [first, *[middle] * (baselines.DNCNN - 2), last]
    state = {}
    for i, kernel in enumerate(kernels):
        state[f"model.{2 * i}.weight"] = kernel.transpose(3, 2, 0, 1).astype(np.float32)
        state[f"model.{2 * i}.bias"] = np.full(kernel.shape[-1], 0.1 * (i == baselines.DNCNN - 1), np.float32)
    return state


def test_dncnn_subtracts_what_its_last_layer_says(tmp_path):
    np.savez(tmp_path / "x.npz", **made_dncnn())
    y = np.random.default_rng(0).uniform(-100, 300, (6, 5, 1))
    expected = y - np.maximum(2 * y, 0) / 4 - 25.5
    np.testing.assert_allclose(denoising.dncnn(str(tmp_path / "x.npz"))(y, 25.0), expected, atol=1e-3)
    np.savez(tmp_path / "other.npz", **{"model.0.weight": np.zeros(1)})
    with pytest.raises(ValueError, match="it holds no DnCNN"):
        denoising.dncnn(str(tmp_path / "other.npz"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["total variation", "non-local means"])
def test_the_classical_ones_keep_a_plain_picture_and_take_its_noise(name, channels):
    """Of one grey value, what is left of the noise is below a third of it."""
    truth = np.full((32, 40, channels), 120.0)
    made = case(truth, 25.0)
    x = denoising.classical()[name].denoise(made.y, 25.0)
    assert x.shape == truth.shape and np.sqrt(np.mean((x - truth) ** 2)) < 25 / 3
    np.testing.assert_allclose(denoising.classical()[name].denoise(truth, 1.0), truth, atol=1e-6)


def test_the_interval_is_of_paired_differences():
    """Differences 1, 2, 3 and so 2 ± 1.96 / sqrt(3), however far apart the pictures are."""
    reference = np.array([[10.0, 0.5], [20.0, 0.5], [40.0, 0.5]])
    assert denoising.cell(reference + [[1, 0.1], [2, 0.1], [3, 0.1]], reference) == "25.33 (+2.00 ± 1.13)  0.6000"
    assert denoising.cell(reference, None) == "23.33  0.5000"


def test_scores_are_kept_by_method_version_sigma_and_picture(tmp_path):
    path, calls = str(tmp_path / "kept.json"), []
    method = denoising.Method(lambda y, sigma: (calls.append(sigma), y)[1], "one 1.0")
    first, second = case(np.full((16, 16, 3), 90.0), 5.0), case(np.full((16, 16, 3), 90.0), 5.0, 1)
    found = denoising.Kept(path)(method, "a", first, 5.0)
    assert denoising.Kept(path)(method, "a", first, 5.0) == found and len(calls) == 1
    kept = denoising.Kept(path)
    kept(method, "a", second, 5.0), kept(method, "b", first, 5.0), kept(method._replace(version="2"), "a", first, 5.0)
    kept(method._replace(version=""), "a", first, 5.0), kept(method._replace(version=""), "a", first, 5.0)
    assert len(calls) == 6 and len(json.loads((tmp_path / "kept.json").read_text())) == 4
    (tmp_path / "kept.json").write_text("[1")
    with pytest.raises(ValueError, match="--kept is .*which holds no scores"):
        denoising.Kept(path)


@pytest.fixture
def folder(tmp_path):
    """Two colour pictures and a grey one."""
    (tmp_path / "Set" / "HR").mkdir(parents=True)
    for i, shape in enumerate([(24, 31, 3), (20, 20, 3), (22, 26)]):
        smooth = np.linspace(60, 190, int(np.prod(shape))).reshape(shape).astype(np.uint8)
        Image.fromarray(smooth).save(tmp_path / "Set" / "HR" / f"{i}.png")
    return str(tmp_path / "Set")


def test_a_pictures_noise_depends_on_the_seed_and_its_place_alone(folder):
    low, high = (denoising.cases(folder, 3, sigma, 1000, 0) for sigma in (10.0, 20.0))
    assert [each.truth.shape for each in low] == [(24, 31, 3), (20, 20, 3), (22, 26, 3)]
    for a, b, c in zip(low, high, denoising.cases(folder, 3, 10.0, 2, 1)):
        np.testing.assert_allclose(2 * (a.y - a.truth), b.y - b.truth, atol=1e-9)
        assert not np.allclose(a.y, c.y) and (a.truth == c.truth).all()
    assert denoising.cases(folder, 1, 10.0, 2, 0)[1].truth.shape == (20, 20, 1)


def stubbed(monkeypatch):
    """BM3D as a package whose result is the noisy picture, brought to [0, 1] as it asks."""
    run = lambda y, sigma, profile: y
    package = SimpleNamespace(BM3DProfile=lambda: SimpleNamespace(num_threads=0), bm3d=run, bm3d_rgb=run)
    monkeypatch.setitem(sys.modules, "bm3d", package)
    monkeypatch.setattr(denoising.importlib.util, "find_spec", lambda name: package)
    monkeypatch.setattr(denoising.importlib.metadata, "version", lambda name: "1")


def test_the_table_of_a_folder(folder, monkeypatch, tmp_path):
    """BM3D's own row has no difference; where it gives back the noise, the noise's difference is 0."""
    stubbed(monkeypatch)
    monkeypatch.setattr(denoising, "loaded", lambda path: ({denoising.OURS: denoising.one_step(prior())}, 3))
    np.savez(tmp_path / "dncnn.npz", **made_dncnn())
    given = {"pictures": [folder], "sigmas": [15.0, 50.0], "dncnn": str(tmp_path / "dncnn.npz")}
    text, failed, whole = denoising.main(published.values(denoising.OPTIONS, **given))
    assert (failed, whole) == (0, 3 * 4 * 2 + 3 * 5) and "not installed" not in text
    colour, grey = text.split("Set, 3 colour pictures")[1].split("Set, 3 grey pictures")
    assert "sigma 15" in colour and "sigma 50" in colour and "DnCNN" not in colour
    assert re.findall(r"sigma \d+", grey) == ["sigma 25"] and "DnCNN" in grey
    for line in colour.splitlines():
        if line.startswith("noise"):
            assert line.count("(+0.00 ± 0.00)") == 2 or line.count("(-0.00 ± 0.00)") == 2
        if line.startswith("BM3D"):
            assert "±" not in line
    assert len(re.findall(r"\(unverified\)", text)) == 9


def test_without_bm3d_there_is_one_line_and_no_difference(folder, monkeypatch):
    monkeypatch.setattr(denoising.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(denoising, "loaded", lambda path: ({denoising.OURS: denoising.one_step(prior())}, 3))
    text = denoising.main(published.values(denoising.OPTIONS, pictures=[folder], sigmas=[25.0])).text
    assert "pip install bm3d" in text and "±" not in text.split("\n", 1)[1] and "BM3D  " not in text


def test_bm3d_is_given_what_it_asks_for(monkeypatch):
    """[0, 1], sigma in the same, one thread, and grey values without their axis or with it."""
    stubbed(monkeypatch)
    seen = []
    run = lambda y, sigma, profile: (seen.append((y, sigma, profile.num_threads)), np.squeeze(y))[1]
    monkeypatch.setattr(sys.modules["bm3d"], "bm3d", run)
    y = np.random.default_rng(0).uniform(-20, 270, (6, 5, 1))
    np.testing.assert_allclose(denoising.bm3d(y, 51.0), y, atol=1e-10)
    np.testing.assert_allclose(seen[0][0], y / 255)
    assert seen[0][1:] == (0.2, 1)


def test_options_take_their_defaults_and_no_nonsense():
    for name, option in denoising.OPTIONS.items():
        for value in (option.default, option.quick):
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            assert value is None or option.field.accepts(schema.parsed(option.field, text)), name
    refused = {"sigmas": "0", "count": "1", "seed": "-1", "pictures": ""}
    for name, text in refused.items():
        field = denoising.OPTIONS[name].field
        assert not field.accepts(schema.parsed(field, text)), name


@pytest.mark.slow
def test_the_embedded_prior_takes_noise_out_of_a_photograph():
    """On tiles of its own 32 pixels, at sigma 50: 6 dB above the noise itself."""
    rows, channels = denoising.loaded("")
    found = denoising.cases("photographs", 3, 50.0, 1, 0)[0]
    cut = denoising.Case("cut", found.truth[100:148, 200:260], found.y[100:148, 200:260])
    kept = denoising.Kept("")
    tried = (lambda y, sigma: y, rows[denoising.OURS], rows[denoising.EIGHT])
    before, after, eight = (kept(denoising.Method(each), "", cut, 50.0)[0] for each in tried)
    assert channels == 3 and eight > after > before + 6
