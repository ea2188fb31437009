"""MRI in `experiments.reconstruct`: simulated k-space and scans, from the file to the report, and what is refused."""

import importlib
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from configs import mri as configuration
from diffinv import operators, schema, weights
from diffinv.nn import convnet
from experiments.common import runtime
from experiments.restore import fields, mri, part, scans
from experiments.restore.bench import Bench
from experiments.restore.operators import OPERATORS, require_fit, shown
from experiments.restore.phantoms import phantoms

SIZE = (24, 20)


def loaded():
    """The command, whose flags are its own and none of this process's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "config_flag", lambda *_: SimpleNamespace(value=None))
        patch.setattr(runtime, "flag", lambda name, default, field: SimpleNamespace(value=default))
        return importlib.import_module("experiments.reconstruct")


command = loaded()


def configured(mode="smoke", **changes):
    config = configuration.get_config(mode)
    config.update(changes)
    schema.require(fields.FIELDS, config.to_dict())
    return config


def picture(size=SIZE):
    """One slice, (H, W, 1) float64 in [-1, 1]."""
    return jnp.asarray(phantoms(size, 1)[0], float)


def kspace(size=SIZE, coils=3, sigma=0.0, turn=0.0):
    """k-space (coils, H, W) of a slice, 0 to 2, whose phase turns slowly, and noise."""
    z = (phantoms(size, 1)[0, ..., 0] + 1) * np.exp(1j * turn * np.linspace(-1, 1, size[0]))[:, None]
    noise = np.random.default_rng(0).standard_normal((2, coils, *size))
    clean = np.asarray(operators.fft2c(jnp.asarray(np.asarray(operators.simulated_coils(size, coils)) * z)))
    return (clean + sigma * (noise[0] + 1j * noise[1])).astype(np.complex64)


def saved(folder, name="scan", **arrays):
    np.savez(folder / f"{name}.npz", **arrays)
    return str(folder / f"{name}.npz")


def read(folder, **arrays):
    return scans.scan(saved(folder, **arrays), "scan")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """The path of a tiny prior of grey pictures of any size."""
    folder = tmp_path_factory.mktemp("prior")
    net = convnet.ConvUNet(channels=4, multipliers=(1,), blocks=1, out_channels=1)
    params = jax.jit(net.init)(jax.random.key(0), np.zeros((8, 8, 1), np.float32), np.float32(0))
    architecture = {"name": "conv", "channels": 4, "multipliers": [1], "blocks": 1, "patch": 2}
    architecture |= {"time_scale": 40.0, "remat": False, "dtype": "float32", "out_channels": 1}
    card = {
        "architecture": architecture,
        "parametrisation": {"parametrisation": "edm", "sigma_data": 0.4},
        "process": {"name": "EDM", "sigma_max": 40.0},
        "shape": [8, 8, 1],
    }
    weights.save(str(folder / "grey"), params, card)
    return str(folder / "grey")


def test_fastmri_has_eight_per_cent_in_the_centre_at_four_times_and_four_at_eight():
    config = configured(mri={"acceleration": 2, "centre": 0.25, "coils": 1})
    for task, kept, centre in (("mri_4", 32, 10), ("mri_8", 16, 5), ("mri", 64, 32)):
        line = np.asarray(mri.mask(config, task, jax.random.key(0), (64, 128)))[0]
        assert line.sum() == kept and line[64 - centre // 2 :][:centre].all(), task


def test_a_centre_of_more_lines_than_are_sampled_is_refused():
    config = configured(mri={"acceleration": 16, "centre": 0.5})
    with pytest.raises(ValueError, match="task is mri, on pictures of 32 x 32: acs is 16; 16x of 32 lines takes 2"):
        require_fit(config, ["mri"], (32, 32, 1))


def test_what_is_simulated_is_the_k_space_of_signal_less_that_of_one():
    """y = F(x + 1) - F(1) on the sampled lines, which is linear in x, with coils and without."""
    x, key = picture(), jax.random.key(0)
    for coils in (1, 3):
        config = configured(mri={"coils": coils})
        A, m = OPERATORS["mri_4"](config, key, (*SIZE, 1)), np.asarray(mri.mask(config, "mri_4", key, SIZE))
        S = operators.simulated_coils(SIZE, coils) if coils > 1 else np.ones((1, *SIZE))
        k = [operators.fft2c(jnp.asarray(np.asarray(S) * np.asarray(z)[..., 0])) for z in (x + 1, np.ones_like(x))]
        np.testing.assert_allclose(A(x), m * np.asarray(k[0] - k[1]), atol=1e-12)


def test_a_measurement_is_shown_zero_filled_from_the_dark():
    A = operators.real_mri(jnp.ones(SIZE), operators.simulated_coils(SIZE, 3))
    full = di.measure(jax.random.key(0), A, picture())
    np.testing.assert_allclose(shown(full, (*SIZE, 1)), picture(), atol=1e-12)
    nothing = operators.real_mri(jnp.zeros(SIZE), operators.simulated_coils(SIZE, 3))
    dark = di.measure(jax.random.key(0), nothing, picture())
    np.testing.assert_array_equal(shown(dark, (*SIZE, 1)), -np.ones((*SIZE, 1)))


def test_a_scan_is_brought_to_the_energy_of_the_slices_and_its_magnitude_is_found(tmp_path):
    """Any gain and any slow phase: the picture is that of the slice, times one number near 1."""
    given = kspace(turn=0.5)
    found = read(tmp_path, kspace=given)
    again = read(tmp_path, kspace=(37 * given).astype(np.complex64))
    np.testing.assert_allclose(again.kspace, found.kspace, rtol=1e-5)
    inner = scans.middle(found.kspace, round(0.04 * SIZE[0]), round(0.04 * SIZE[1]))
    assert np.sqrt(np.sum(np.abs(inner) ** 2) / np.prod(SIZE)) == pytest.approx(2 * scans.LEVEL, rel=1e-5)
    signal = np.linalg.norm(np.asarray(operators.ifft2c(jnp.asarray(found.kspace))), axis=0)
    true = np.asarray(picture())[..., 0] + 1
    np.testing.assert_allclose(signal * true.mean(), true * signal.mean(), atol=1e-4)
    np.testing.assert_allclose(found.magnitude[..., 0], np.clip(signal - 1, -1, 1), atol=1e-6)
    assert found.whole and found.centre == 20 and found.magnitude.dtype == np.float32
    assert found.note.startswith("scan: 3 coils, 24 x 20, noise of ")


def test_the_noise_of_a_scan_is_measured_at_the_edge_of_k_space(tmp_path):
    """In the scan's scale, whether all was sampled or a part."""
    large, sigma = (96, 80), 1.0  # so that it is all of what lies there
    given = kspace(large, sigma=sigma)
    some = np.random.default_rng(1).random(large) < 0.3
    some[40:56, 32:48] = True
    for kept in (np.ones(large, bool), some):
        found = read(tmp_path, kspace=np.where(kept, given, 0))
        gain = np.abs(found.kspace).max() / np.abs(given).max()
        assert found.sigma == pytest.approx(gain * sigma, rel=0.1)
    assert not found.whole and found.centre == 16 and "sampled at 3" in found.note


def test_of_a_whole_scan_the_coils_are_found_and_the_picture_comes_back(tmp_path):
    """All lines, a smooth phase: the misfit of the true magnitude is what the coils' estimate leaves."""
    size = (64, 60)
    found = read(tmp_path, kspace=kspace(size, turn=0.3))
    m = mri.measurement(configured(), "mri", jax.random.key(0), found, degraded=True)
    truth = jnp.asarray(found.magnitude)
    assert m.y.shape == (3, *size) and m.sigma == pytest.approx(found.sigma)
    misfit = np.linalg.norm(m.residual(truth)) / np.linalg.norm(found.kspace)
    assert misfit < 0.02
    back = np.asarray(shown(m, (*size, 1)))
    assert np.linalg.norm(back - truth) < 0.02 * np.linalg.norm(truth + 1)


def test_a_mask_leaves_lines_of_a_scan_and_coils_see_no_others(tmp_path):
    size = (64, 60)
    found = read(tmp_path, kspace=kspace(size))
    key, config = jax.random.key(0), configured()
    m = mri.measurement(config, "mri_4", key, found, degraded=False)
    kept = np.asarray(mri.mask(config, "mri_4", key, size)) > 0
    assert not np.asarray(m.y)[:, ~kept].any() and kept[0].sum() == 15
    other = found._replace(kspace=np.where(kept, found.kspace, 7.0).astype(np.complex64))
    np.testing.assert_array_equal(m.y, mri.measurement(config, "mri_4", key, other, degraded=False).y)


def test_the_deviation_is_that_of_what_no_real_picture_explains():
    """Of noise alone in more numbers than a picture has it is the noise's own, whatever the picture; else it is 0."""
    size, sigma = (32, 28), 0.2
    random = np.random.default_rng(0)
    for coils, lines in ((6, 14), (2, 4)):
        mask = jnp.asarray(np.ones((32, 1)) * (np.arange(28) < lines))
        A = operators.real_mri(mask, operators.simulated_coils(size, coils, 2.0))
        noise = random.standard_normal((2, coils, *size)) * np.asarray(A.outer.mask)
        y = A(picture(size)) + jnp.asarray(sigma * (noise[0] + 1j * noise[1]))
        rest = jnp.linalg.norm(y - A.project(y))
        found = float(mri.unexplained(A, rest))
        assert found == pytest.approx(sigma, rel=0.05) if coils == 6 else found == 0


def test_a_scan_whose_coils_are_wrong_is_told_to_be_noisier_and_keeps_what_a_picture_explains(tmp_path):
    size = (64, 60)
    sharp = kspace(size, turn=9.0)  # a phase that the centre of 5 lines does not see
    found, key = read(tmp_path, kspace=sharp), jax.random.key(0)
    m = mri.measurement(configured(), "mri_4", key, found, degraded=False)
    assert float(m.sigma) > 2 * found.sigma
    again = m.operator.project(m.y)
    assert np.linalg.norm(again - m.y) < 1e-2 * np.linalg.norm(m.y)


BAD = {
    "no kspace": (lambda: {"volume": np.ones((3, 24, 20), np.uint8)}, "holds volume; a scan is `kspace`, complex"),
    "magnitudes": (lambda: {"kspace": np.abs(kspace())}, "kspace holds float32; give complex numbers"),
    "pickled": (lambda: {"kspace": np.asarray([{}], object)}, "kspace holds object; give complex numbers"),
    "one coil without an axis": (lambda: {"kspace": kspace()[0]}, r"shape \(24, 20\); give \(coil, ky, kx\)"),
    "coils last": (lambda: {"kspace": np.moveaxis(kspace(), 0, -1)}, r"shape \(24, 20, 3\); give \(coil, ky, kx\)"),
    "several slices": (lambda: {"kspace": kspace()[None]}, r"shape \(1, 3, 24, 20\); give \(coil, ky, kx\)"),
    "small": (lambda: {"kspace": kspace((24, 12))}, "at least 16 x 16 samples"),
    "NaN": (lambda: {"kspace": np.where(np.eye(24, 20) > 0, np.nan, kspace())}, "has 60 values that are not finite"),
    "nothing": (lambda: {"kspace": 0 * kspace()}, "kspace is 0 everywhere; give a scan"),
    "corners": (lambda: {"kspace": np.fft.ifftshift(kspace(), (1, 2))}, r"greatest at \(0, 0\), .* np.fft.fftshift"),
    "no centre": (lambda: {"kspace": kspace() * (np.arange(20) % 2 == 0)}, "its centre is not sampled"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_scan_is_refused_in_one_line(tmp_path, name):
    make, words = BAD[name]
    with pytest.raises((ValueError, OSError), match=words) as error:
        read(tmp_path, **make())
    assert "scan.npz" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_not_there_or_no_archive_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file matches .*give --kspace a .npz file"):
        scans.scans(str(tmp_path / "*.npz"), 0)
    (tmp_path / "x.npz").write_bytes(b"text")
    with pytest.raises(OSError, match="x.npz: is not a readable array file"):
        scans.scans(str(tmp_path / "x.npz"), 0)


def run(monkeypatch, out, prior, kspace="", degraded=False, images="", **changes):
    """The exit status of the command, and its records."""
    config = configured(prior=prior, name="x", size=24, **changes)
    given = {"CONFIG": config, "IMAGES": images, "FRESH": True, "OUT": str(out), "DEGRADED": degraded}
    given |= {"MASK": "", "KERNEL": "", "KSPACE": kspace}
    for name, value in given.items():
        monkeypatch.setattr(command, name, SimpleNamespace(value=value))
    with jax.enable_x64(False):  # as in a process of its own
        status = command.main()
    return status, json.loads((out / "x" / "results.json").read_text())["records"]


@pytest.mark.slow
def test_smoke_runs_on_generated_slices(tmp_path, monkeypatch, prior):
    status, records = run(monkeypatch, tmp_path, prior)
    assert status == 0 and [record["picture"] for record in records] == ["phantom0", "phantom1"]
    labels = ["zero-filled", "TV", "DDNM+", "DPS", "DAPS", "MMPS", "ReGuidance(DAPS)"]
    for record in records:
        assert record["task"] == "mri_4" and list(record["methods"]) == labels
        for case in record["methods"].values():
            assert all(np.isfinite(case[name]) for name in ("psnr", "ssim", "nmse", "residual", "floor"))
        tv, zero = record["methods"]["TV"], record["methods"]["zero-filled"]
        assert tv["nfe"] == zero["nfe"] == 0 and tv["nmse"] < zero["nmse"]


@pytest.mark.slow
def test_a_scan_is_restored_with_a_truth_and_without(tmp_path, monkeypatch, prior, capsys):
    """The same file, undersampled by a mask, and one that was undersampled already."""
    given = kspace((32, 50), sigma=0.02)
    changes = {"solver": "zero_filled,total_variation"}
    _, (record,) = run(monkeypatch, tmp_path, prior, saved(tmp_path, kspace=given), task="mri_4", **changes)
    assert record["picture"] == "scan" and record["methods"]["TV"]["psnr"] > 15 and "truth" in record
    assert "1 pictures of 32 x 50 under a prior, the noise measured" in capsys.readouterr().out
    some = given * (np.random.default_rng(0).random((32, 50)) < 0.5)
    some[:, 12:20, 21:29] = given[:, 12:20, 21:29]
    path = saved(tmp_path, "part", kspace=some)
    _, (record,) = run(monkeypatch, tmp_path, prior, path, degraded=True, task="mri", **changes)
    assert "truth" not in record and "psnr" not in record["methods"]["TV"]
    assert np.isfinite(record["methods"]["TV"]["residual"]) and "sampled at" in capsys.readouterr().out


REFUSED = [
    ({"task": "bicubic"}, {}, "config.task is bicubic, and --kspace is k-space; give mri or mri_4 or mri_8"),
    ({"task": "mri_4"}, {"degraded": True}, "config.task is mri_4, and --kspace --degraded is k-space; give mri"),
    ({"task": "mri_8"}, {}, "config.task is mri_8, whose centre has under 4 lines, and coils need them; give another"),
    (
        {"solver": "zero_filled,ddnm_plus", "task": "mri_4"},
        {},
        "config.task is mri_4, whose .* is ddnm_plus, which want",
    ),
    ({"task": "mri_4"}, {"images": "x.png"}, "--images and --kspace are both given; give one"),
    (
        {"task": "mri_4", "prior": "prior32"},
        {},
        "config.prior is 'prior32', of RGB pictures",
    ),
    (
        {"task": "mri_4", "prior": "photo"},
        {},
        "config.prior is 'photo', of RGB pictures, and --kspace has slices; give brain128",
    ),
]


@pytest.mark.parametrize(("changes", "given", "words"), REFUSED)
def test_what_does_not_fit_a_scan_is_refused_by_name(tmp_path, monkeypatch, prior, changes, given, words):
    path = saved(tmp_path, kspace=kspace((64, 60)))
    with pytest.raises(ValueError, match=words):
        run(monkeypatch, tmp_path, **{"prior": prior, "solver": "dps", **changes}, kspace=path, **given)


def test_a_scan_that_is_undersampled_already_has_no_truth(tmp_path, monkeypatch, prior):
    some = kspace((64, 60)) * (np.arange(60) % 2 == 0)
    some[:, 24:40, 22:38] = kspace((64, 60))[:, 24:40, 22:38]
    with pytest.raises(ValueError, match="scan is sampled at 5.*; --degraded --config.task=mri restores it as it is"):
        run(monkeypatch, tmp_path, prior, saved(tmp_path, kspace=some), task="mri_4", solver="dps")


def test_without_a_path_the_run_says_what_is_missing(tmp_path, monkeypatch, prior):
    with pytest.raises(ValueError, match="config.bundled is 'none': there are no pictures; give --images=PATH, or --k"):
        run(monkeypatch, tmp_path, prior, bundled="none", solver="dps")


def test_ddnm_takes_one_coil_and_is_refused_for_several(prior):
    ready = lambda coils: part.part(configured(prior=prior, solver="ddnm_plus", mri={"coils": coils}))
    assert ready(1).tasks == ["mri_4"]
    with pytest.raises(ValueError, match="config.task is mri_4, whose singular values are not known, .* is ddnm_plus"):
        ready(4)


@pytest.mark.parametrize("coils", [1, 3])
def test_the_floor_is_what_noise_leaves_of_a_true_picture(coils):
    """The residual of the truth, over its floor, is 1; of sixteen draws, though that of coils is found by iteration."""
    config = configured(mri={"coils": coils}, group=16)
    require_fit(config, ["mri_4"], (*SIZE, 1))
    truth = np.repeat(phantoms(SIZE, 1), 16, 0)
    prior = di.gaussian(di.process.VP(), jnp.zeros((*SIZE, 1)), jnp.eye(int(np.prod(SIZE))))
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        bench = Bench(config, prior, "mri_4", truth)
        norms = jax.vmap(lambda m, x: jnp.linalg.norm(m.residual(x)))(bench.measurements, truth)
    assert float(np.mean(norms / bench.floors)) == pytest.approx(1, abs=0.03)
    assert bench.seen(0).shape == (*SIZE, 1) and bench.seen(0).dtype == np.uint8
