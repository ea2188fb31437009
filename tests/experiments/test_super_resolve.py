"""Enlarging users' pictures: what is read and kept, tiles and bands without a seam, the command, what it refuses."""

import html
import importlib
import os
import sys
import tracemalloc
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes, urljoin

import forking
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from training_command import FLAGS

import diffinv as di
from diffinv import data, gaussian_field, operators, process
from diffinv.consistency import ctmsr
from diffinv.nn import srnet
from experiments.common import photos, runtime
from experiments.methods.table import METHODS, Method
from experiments.report.page import link
from experiments.upscale import baselines, upscaling
from experiments.upscale import page as super_resolve_page

pytestmark = pytest.mark.long

NET = {"channels": 8, "blocks": 1, "cubic": -0.5}


def drawn(seed=0):
    """Weights of a tiny network, none of them 0."""
    low = jnp.zeros((4, 4, 3), jnp.float32)
    x = jnp.zeros((16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(srnet.SRNet(**NET).init, jax.random.key(0), x, jnp.zeros((), jnp.float32), low)
    generator = np.random.default_rng(seed)
    draw = lambda leaf: jnp.asarray(0.3 * generator.standard_normal(leaf.shape) / np.sqrt(leaf.size), leaf.dtype)
    return jax.tree.map(draw, shapes)


def save(path, scale=4):
    card = {"scale": scale, "method": "ctmsr", "network": "srnet", "architecture": {"name": "srnet", **NET}}
    parametrisation = {"scale": scale, "sigma_max": 1.0, "method": "ctmsr", "cubic": -0.5}
    di.weights.save(str(path), drawn(), {**card, "parametrisation": parametrisation})
    return path


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)[: 2 + (channels > 1)], np.uint8)


@pytest.fixture(scope="module")
def enlarger():
    upscaler = ctmsr.Upscaler(drawn(), srnet.SRNet(**NET).apply, cubic=-0.5)
    return upscaling.Enlarger(upscaler, 16, 12, 8)


def test_tiles_are_the_whole_picture(enlarger):
    """The network sees 5 pixels around and the margin is 3, beyond which almost nothing comes through."""
    low, ticks = data.to_unit(noise(27, 21)), []
    parts = enlarger(1, low, ticks.append)
    start = upscaling.noise_rows(1, 0, 108, 84)
    whole = jax.jit(upscaling.from_noise)(enlarger.restore.fixed, low, start, jax.random.key(0))
    assert parts.shape == (108, 84, 3) and sum(ticks) == enlarger.count(27, 21) == 4 * 3
    assert np.abs(parts.astype(int) - data.to_pixels(whole)).max() <= 1
    np.testing.assert_array_equal(enlarger(1, low), parts)
    assert (enlarger(2, low) != parts).any()
    assert enlarger(0, low[:9, :16]).shape == (36, 64, 3)  # smaller than a tile


def test_noise_belongs_to_its_place():
    whole = upscaling.noise_rows(3, 0, 70, 50)
    np.testing.assert_array_equal(upscaling.noise_rows(3, 13, 66, 50), whole[13:66])
    assert abs(whole.mean()) < 0.05 and abs(whole.std() - 1) < 0.05 and whole.dtype == np.float32


def test_a_network_that_diverged_is_refused(enlarger):
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, enlarger.restore.fixed.params)
    groups = upscaling.Groups(lambda params, x: x + jax.tree.leaves(params)[0].sum(), broken, 2)
    with pytest.raises(ValueError, match="not finite"):
        groups(np.ones((3, 2), np.float32))


@pytest.mark.parametrize(
    ("mode", "kept"), [("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("P", "RGB"), ("CMYK", "RGB")]
)
def test_modes_are_kept(tmp_path, mode, kept):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(noise(9, 12, 4 if "A" in mode else 3)).convert(mode).save(tmp_path / f"in.{suffix}")
    photo = photos.read(str(tmp_path / f"in.{suffix}"))
    assert photo.rgb.shape == (9, 12, 3) and photo.grey == (mode in ("L", "LA"))
    photos.write(tmp_path / "out.png", photo.rgb.repeat(4, 0).repeat(4, 1), photo)
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == kept and image.size == (48, 36)
        if photo.alpha is not None:
            alpha = Image.fromarray(photo.alpha).resize((48, 36), Image.Resampling.BICUBIC)
            np.testing.assert_array_equal(np.asarray(image)[..., -1], np.asarray(alpha))


def test_a_transparent_palette_keeps_its_alpha(tmp_path):
    image = Image.fromarray(noise(8, 8)).quantize(4)
    image.save(tmp_path / "in.png", transparency=0)
    photo = photos.read(str(tmp_path / "in.png"))
    np.testing.assert_array_equal(photo.alpha == 0, np.asarray(image) == 0)


def test_sixteen_bits_stay_sixteen_and_it_is_said(tmp_path):
    """Shown in 8 bits as the value over 257, rounded, where dividing by 256 or clipping at 255 would differ."""
    values = np.asarray([[0, 255, 257, 32768, 65535]] * 3, np.uint16)
    Image.fromarray(values).save(tmp_path / "in.png")
    photo = photos.read(str(tmp_path / "in.png"))
    assert photo.rgb[0, :, 0].tolist() == [0, 1, 1, 128, 255] and photo.grey and photo.deep
    assert photo.notes == ("16-bit values, 0 to 65535 of 0 to 65535",)
    np.testing.assert_array_equal(photos.sixteen(photo.unit)[..., 0], values)
    Image.fromarray(np.linspace(400, 8400, 64).astype(np.uint16).reshape(8, 8)).save(tmp_path / "dim.png")
    dim = photos.read(str(tmp_path / "dim.png"))
    assert "400 to 8400" in dim.notes[0] and "LOW,HIGH" in dim.notes[0] and len(np.unique(dim.unit)) == 64
    stretched = photos.read(str(tmp_path / "dim.png"), data.Reading("auto")).unit
    assert (stretched.min(), stretched.max()) == (-1, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_written_in_their_own_kind(tmp_path, channels):
    """Read back by our own reader, which test_reader holds to the format's words; Pillow agrees in the upper 8 bits."""
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    colours = 3 if channels > 2 else 1
    alpha = (values[..., -1] / 65535).astype(np.float32) if channels in (2, 4) else None
    photo = photos.Photo(data.Picture((values[..., :colours] / 65535).astype(np.float32), alpha, b"profile"))
    photos.write(tmp_path / "x.png", photos.sixteen(photo.unit), photo)
    again = photos.read(str(tmp_path / "x.png"))
    assert again.grey == photo.grey and again.deep and again.profile == b"profile"
    np.testing.assert_array_equal(photos.sixteen(again.unit)[..., :colours], values[..., :colours])
    if alpha is not None:
        np.testing.assert_array_equal(np.rint(again.alpha * 65535), values[..., -1])
    with Image.open(tmp_path / "x.png") as image:
        if channels in (3, 4):
            np.testing.assert_array_equal(np.asarray(image), values >> 8)


def test_sixteen_bits_are_written_in_the_memory_of_a_few_rows(tmp_path):
    """Of noise, which does not deflate: less than a tenth of the array of 4.3 MB."""
    values = np.random.default_rng(0).integers(0, 65536, (600, 1200, 3)).astype(np.uint16)
    photo = photos.Photo(data.Picture(np.zeros((1, 1, 3), np.float32)))
    tracemalloc.start()
    photos.write(tmp_path / "x.png", values, photo)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 10
    np.testing.assert_array_equal(photos.sixteen(photos.read(str(tmp_path / "x.png")).unit), values)


def test_the_page_compares_sixteen_bits_in_eight(tmp_path):
    """The third panel is the result over 257, rounded."""
    photo = photos.Photo(data.Picture(np.full((4, 4, 3), 0.5, np.float32)))
    result = np.random.default_rng(0).integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    path = super_resolve_page.compare(tmp_path / "x.png", photo, result, 4)
    np.testing.assert_array_equal(np.asarray(Image.open(path))[22:, -16:], np.rint(result / 257))


def test_a_tile_that_a_solver_gave_up_is_no_result(monkeypatch):
    """Frozen at its second step, where the state was still finite."""
    frozen = di.Sampler(
        lambda key, t, x: jnp.zeros((16, 16, 3)),
        lambda key, x, t, s: (jnp.where(t < 0.9, jnp.nan, x), di.StepInfo(di.Cost())),
        lambda key, x: x,
    )
    entry = Method("frozen", lambda prior, m: frozen, 4)
    spectrum = 1 + process.dct_frequencies(16, 16)
    prior = gaussian_field(process.VP(), jnp.zeros((16, 16, 3)), spectrum)
    monkeypatch.setattr(upscaling.priors, "load", lambda _: (prior, {}))
    monkeypatch.setitem(METHODS, "dps", entry)
    with jax.enable_x64(False), pytest.raises(upscaling.Diverged, match="a solver diverged"):
        upscaling.Solver("dps", "", 4, 4)(0, np.zeros((4, 4, 3), np.float32))


def loaded(name):
    """A command, whose flags are its own and none of this process's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "flag", lambda name, default, *_, **__: SimpleNamespace(value=default))
        return importlib.import_module(f"experiments.{name}")


def test_no_result_overwrites_what_is_given(tmp_path, monkeypatch):
    command = loaded("super_resolve")
    monkeypatch.setattr(command, "OUT", SimpleNamespace(value=str(tmp_path)))
    (tmp_path / "link").symlink_to(tmp_path / "compare")
    for given in ("a_x4.png", "link/b.png"):
        with pytest.raises(ValueError, match=f"{given} would be overwritten; give another"):
            command.require_kept([str(tmp_path / "a.png"), str(tmp_path / given)], ["a", "b"])
    command.require_kept([str(tmp_path / "a.png"), str(tmp_path / "b.png")], ["a", "b"])
    other = loaded("osmosis")
    monkeypatch.setattr(other, "OUT", SimpleNamespace(value=str(tmp_path)))
    other.require_kept([str(tmp_path / "a.png"), "", str(tmp_path / "compare" / "result.png")])
    with pytest.raises(ValueError, match="strip.png would be overwritten; give another"):
        other.require_kept([str(tmp_path / "a.png"), "", str(tmp_path / "strip.png")])


def test_a_picture_over_the_limit_is_told_the_flag_that_moves_it(tmp_path, monkeypatch):
    command = loaded("super_resolve")
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    for solver in ("ctmsr", "dps"):
        monkeypatch.setattr(command, "SOLVER", SimpleNamespace(value=solver))
        monkeypatch.setitem(command.WAYS, solver, command.WAYS[solver]._replace(most=80))
        with pytest.raises(ValueError, match=r"a.png.* 9 x 9 pixels are more than the limit of 80; .*--max_pixels"):
            command.enlarged(str(tmp_path / "a.png"), "a", 0, None, None)


def test_a_method_that_diverged_at_a_picture_is_marked_and_in_no_mean():
    table = loaded("tables.super_resolution")
    nan, good = dict.fromkeys(("psnr", "ssim"), float("nan")), {"psnr": 30.0, "ssim": 0.5}
    assert table.averages([good, nan]) == {**good, "pictures": 2, "averaged": 1, "frozen": 1}
    assert table.averages([good, good]) == {**good, "pictures": 2}
    rows = [{"method": "bicubic", "pictures": 2}, {"method": "x", **table.averages([nan, nan])}]
    assert table.failures(rows) == (2, 2) and table.failures(rows[:1]) == (0, 0)
    broken = table.Method(lambda low: upscaling.finite(low * np.nan), 0)
    x, numbers = table.attempted(broken, table.Case("a", noise(8, 8), noise(2, 2), False), None)
    assert not x.any() and np.isnan(list(numbers.values())).all() and table.seconds(broken, noise(2, 2)) is None


def test_the_enlarged_picture_keeps_its_bits(enlarger):
    low = np.random.default_rng(0).random((9, 16, 3), np.float32) * 2 - 1
    eight, sixteen = enlarger(0, low), enlarger(0, low, deep=True)
    assert eight.dtype == np.uint8 and sixteen.dtype == np.uint16 and len(np.unique(sixteen)) > 256
    assert np.abs(eight - sixteen / 257).max() <= 0.51


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    pixels = noise(8, 12)
    Image.fromarray(pixels).save(tmp_path / "in.png", exif=exif)
    np.testing.assert_array_equal(photos.read(str(tmp_path / "in.png")).rgb, np.rot90(pixels, -1))


def test_what_cannot_be_read_is_one_line_with_the_path(tmp_path):
    Image.fromarray(noise(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(np.full((4, 4), 300, np.float32)).save(tmp_path / "float.tif")
    for name in ("cut.png", "text.jpg", "float.tif", "missing.png"):
        with pytest.raises(ValueError, match=name) as error:
            photos.read(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_models_that_do_not_fit_are_refused(tmp_path):
    save(tmp_path / "x4")
    assert upscaling.load(str(tmp_path / "x4"), 4).scale == 4
    with pytest.raises(ValueError, match="enlarges x4, and --scale is 2"):
        upscaling.load(str(tmp_path / "x4"), 2)
    with pytest.raises(ValueError, match="no super-resolution network but 'unet'"):
        upscaling.load(di.weights.embedded(), 4)
    with pytest.raises(FileNotFoundError, match="missing"):
        upscaling.load(str(tmp_path / "missing"), 4)
    with pytest.raises(ValueError, match="--scale is 3"):
        upscaling.Solver("dps", "", 3, 5)


def start(*arguments):
    command = [sys.executable, "-m", "experiments.super_resolve", *map(str, arguments)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return forking.run(command, env)


@pytest.mark.parametrize("name", ["javascript:alert(1);", "data:text-html,x", "a #?%<b> \"'", "caf\udce9"])
def test_a_link_of_the_page_is_a_file_beside_it_whatever_its_name(tmp_path, name):
    """No scheme, no host, no fragment: a browser asks for the very file."""
    target = urljoin("file:///folder/index.html", html.unescape(link(f"{name}_x4.png")))
    assert target.startswith("file:///folder/") and os.fsdecode(unquote_to_bytes(target[15:])) == f"{name}_x4.png"
    Image.fromarray(noise(4, 4)).save(tmp_path / "compare.png")
    path = tmp_path / f"{name}_x4.png"
    entry = super_resolve_page.Entry(name, (4, 4), path, tmp_path / "compare.png", 1.0, ("<i>",))
    page = super_resolve_page.write(tmp_path, "command <x>", [entry], ["<failed>"]).read_text()
    assert (
        'href="./' in page and "<i>" not in page and "<x>" not in page and "<failed>" not in page and "<b>" not in page
    )


@pytest.mark.slow
def test_the_command_goes_on_past_a_damaged_file(tmp_path):
    model = save(tmp_path / "x4")
    for name, array in {"a": noise(20, 33, 4), "grey": noise(17, 16, 1), "tiny": noise(3, 9)}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("no picture")
    out = tmp_path / "out"
    done = start(f"{tmp_path}/*.png", f"--model={model}", f"--out={out}", "--tile=16", "--overlap=4")
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(word in lines[0] for word in ("2 of 4", "broken.png", "tiny.png is 9 x 3, too small"))
    with Image.open(out / "a_x4.png") as image, Image.open(out / "grey_x4.png") as grey:
        assert (image.mode, image.size, grey.mode, grey.size) == ("RGBA", (132, 80), "L", (64, 68))
    with Image.open(out / "compare" / "a.png") as image:
        assert image.size == (3 * 4 * 33 + 16, 4 * 20 + 22)
    page = (out / "index.html").read_text()
    assert "grey_x4.png" in page and "broken.png" in page and page.count("data:image/png;base64") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "no picture is given"),
        (["nothing/*.png"], "no image matches"),
        (["README.md", "--solver=ctsmr"], "'ctmsr'"),
    ],
)
def test_bad_input_is_one_line(arguments, word):
    done = start(*arguments)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 1 and len(lines) == 1 and word in lines[0], done.stderr


@pytest.mark.parametrize("name", [pytest.param("dps", marks=pytest.mark.slow), "reguidance"])
def test_the_prior_enlarges_what_it_was_given(name, monkeypatch):
    """Under a smooth Gaussian prior of 16 x 16, tiles of 4 x 4: of the right size, and coarsely what was given."""
    with jax.enable_x64(False):  # as in an experiment
        spectrum = 100 / (1 + 5 * process.dct_frequencies(16, 16)) ** 2
        prior = gaussian_field(process.VP(), jnp.zeros((16, 16, 3)), spectrum)
        monkeypatch.setattr(upscaling.priors, "load", lambda path: (prior, {}))
        low = np.linspace([-0.6, 0.2, 0.5], [0.1, 0.8, -0.3], 35, dtype=np.float32).reshape(5, 7, 3)
        solver, ticks = upscaling.Solver(name, "", 4, 40), []
        candidate = np.asarray(operators.imresize(jnp.asarray(low), (20, 28)))
        x = data.to_unit(solver(0, low, candidate, ticks.append))
        back = np.asarray(operators.imresize(jnp.asarray(x), (5, 7)))
    assert x.shape == (20, 28, 3) and sum(ticks) == solver.count(5, 7) == 2 * 2
    assert np.abs(back - low).mean() < 0.3 * np.abs(low).mean()


def table(*arguments):
    command = [sys.executable, "-m", "experiments.tables.super_resolution", "--prior_crop=0", *map(str, arguments)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    return forking.run(command, env)


@pytest.mark.slow
def test_the_table_is_made_of_any_folder(tmp_path):
    """Drawn VDSR weights of 0 return bicubic itself; what has no path is left out by one line."""
    (tmp_path / "own").mkdir()
    Image.fromarray(noise(50, 61)).save(tmp_path / "own" / "colour.png")
    Image.fromarray(noise(48, 48, 1)).save(tmp_path / "own" / "grey.png")
    (tmp_path / "weights").mkdir()
    layers = {f"residual_layer.{i}.conv.weight": (64, 64, 3, 3) for i in range(baselines.LAYERS)}
    shapes = {**layers, "input.weight": (64, 1, 3, 3), "output.weight": (1, 64, 3, 3)}
    np.savez(tmp_path / "weights" / "vdsr_y.npz", **{name: np.zeros(s, np.float32) for name, s in shapes.items()})
    kernels = {name: (1, 1, 1, 1) for name in baselines.ESRGAN_SLIM}
    np.savez(tmp_path / "weights" / "esrgan_slim_x4.npz", **{f"{n}/kernel": np.zeros(s) for n, s in kernels.items()})
    arguments = ["--sets=own", f"--data={tmp_path}", f"--out={tmp_path}/out", f"--dtm={save(tmp_path / 'x4')}"]
    refused = table(*arguments, f"--weights={tmp_path}/weights")
    assert refused.returncode == 1 and "it holds no ESRGAN-slim" in refused.stderr.splitlines()[-1]
    done = table(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("left out") and "VDSR (--weights)" in done.stdout.splitlines()[0]
    text = (tmp_path / "out" / "super_resolution.md").read_text()
    assert "| bicubic" in text and "| CTMSR with DTM" in text and "## own x4" in text and "RealSR" in text
    assert (tmp_path / "out" / "gallery.png").exists() and "nan" not in text


def test_a_vdsr_without_a_last_layer_is_the_identity():
    params = {f"layer{i}": np.ones((1, 1, 2, 2), np.float32) for i in range(baselines.LAYERS)}
    params |= {"input": np.ones((3, 3, 1, 2), np.float32), "output": np.zeros((3, 3, 2, 1), np.float32)}
    y = np.random.default_rng(0).random((6, 5, 1), np.float32)
    np.testing.assert_array_equal(jax.jit(baselines.vdsr)(params, y), y)


@pytest.mark.slow
def test_the_published_bicubic_rows_and_vdsr(shared, tmp_path):
    """28.42 and 26.00 dB within 0.05; the third-party VDSR weights within 0.15 of the published 31.35 dB."""
    data, weights = f"--data={shared / 'data' / 'sr'}", f"--weights={shared / 'data' / 'weights'}"
    done = [table(data, "--sets=Set5", weights, f"--out={tmp_path}"), table(data, "--sets=Set14", f"--out={tmp_path}")]
    assert [each.returncode for each in done] == [0, 0], done
    lines = [line.split("|") for each in done for line in each.stdout.splitlines()]
    rows = {name: [line for line in lines if line[1:] and line[1].strip() == name] for name in ("bicubic", "VDSR")}
    number = lambda row, column: float(row[column].strip(" *"))
    assert [number(row, 2) for row in rows["bicubic"]] == pytest.approx([28.42, 26.00], abs=0.05)
    assert [number(row, 3) for row in rows["bicubic"]] == pytest.approx([0.8104, 0.7027], abs=2e-3)
    assert number(rows["VDSR"][0], 2) == pytest.approx(31.35, abs=0.15)
