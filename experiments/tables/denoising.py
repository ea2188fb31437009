"""Denoising: a prior in one step beside BM3D, non-local means, total variation and DnCNN, by PSNR and SSIM.

    python -m experiments.tables.denoising --pictures=FOLDER[,FOLDER] [--prior=PATH] [--dncnn=FILE] [--kept=FILE]

As the field measures a denoiser: white noise of the deviation sigma in each channel of an 8-bit picture, neither
rounded nor clipped, of a fixed seed; the result clipped to [0, 255], and its PSNR over all channels; the mean over the
pictures of a set. FOLDER/HR (or FOLDER) holds a set's pictures. Every method is told sigma.

The prior is asked once for E[x_0 | x_t] at the noise level 2 sigma / 255 of [-1, 1], x_t rescaled as its process has
it; sides are padded by reflection to what its network takes, and a network of one size works on overlapping tiles.
"Mean of eight" is that of its answers to the picture turned and mirrored (`denoisers.symmetric`), at eight times the
cost. BM3D is the authors' own (PyPI's bm3d, free for non-commercial use), in one thread. Non-local means: patches of 5
x 5 within 6 pixels, h = 0.6 sigma, as scikit-image's example has it. Total variation: Chambolle's, of the weight 0.8
sigma / 255, the best of 0.6, 0.8, 1, 1.2 on the photographs that install with scikit-image, which it thus flatters.

The grey part is DnCNN's, at the one sigma that it was trained for. A prior of colours takes part by its own noise law:
grey values with noise sigma are the channels' mean of three equal channels with independent noise sqrt(3) sigma, so the
two directions that hold no picture are filled with drawn noise, and the mean over the channels, and over 4 draws, is
the result.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle
from tqdm import tqdm

import diffinv as di
from diffinv import data, schema, tiles, times, weights
from diffinv.metrics import image
from diffinv.metrics.posterior import interval
from experiments.common import priors
from experiments.tables import published
from experiments.tables.published import Option, Told, counted, numbers
from experiments.upscale import baselines

Denoise = Callable[[np.ndarray, float], np.ndarray]
"""`(y, sigma) -> x`, (h, w, channels) in 8-bit units."""
TRAINED, DRAWS, NLM, TV = 25.0, 4, 0.6, 0.8
REFERENCE = "BM3D"
OURS, EIGHT = "prior, one step", "mean of eight"
REMEMBERED = {
    "CBM3D": ("33.52", "30.71", "27.38"),
    "FFDNet": ("33.87", "31.21", "27.96"),
    "DRUNet": ("34.30", "31.69", "28.51"),
}
"""PSNR on CBSD68 at 15, 25 and 50, from memory: nobody has compared them with the papers."""
OPTIONS = {
    "pictures": Option(["photographs"], None, schema.several(schema.path("folders, a set each"), least=1)),
    "prior": Option("", None, schema.path("of a checkpoint; '' for the embedded prior")),
    "dncnn": Option("", None, schema.path("dncnn25_gray.npz, DnCNN's grey weights; '' for no grey part")),
    "sigmas": Option(
        [15.0, 25.0, 50.0], [25.0], numbers(schema.number("of the noise", above=0, high=255, unit="of 255"))
    ),
    "count": Option(1000, 2, counted("pictures of each set, at most", 10_000)),
    "seed": Option(0, None, schema.whole("of the noise", low=0)),
    "kept": Option(
        "", None, schema.path("a JSON file of the scores that need no weights, which are then not repeated")
    ),
}


class Method(NamedTuple):
    """A row; `version` says whose results these are, where they may be kept, and is "" where not."""

    denoise: Denoise
    version: str = ""


class Case(NamedTuple):
    """A test picture: its name, its values (h, w, channels) in [0, 255], and the same with noise."""

    name: str
    truth: np.ndarray
    y: np.ndarray


def reflected(x: np.ndarray, least: int) -> np.ndarray:
    """(h, w, c) continued by reflection, below and to the right, to at least so many pixels."""
    return np.pad(x, (*((0, max(least - side, 0)) for side in x.shape[:2]), (0, 0)), "symmetric")


def one_step(prior: di.Prior, size: int = 0) -> Denoise:
    """`E[x_0 | x_t]` of a prior, on whole pictures, or on tiles of `size`."""

    @jax.jit
    def program(prior: di.Prior, x, ratio):
        t = times.from_sigma(prior.process, ratio)
        whole = lambda x: prior.denoise(prior.process.alpha(t) * x, t)
        return tiles.tiled(whole, size, size // 2)(x) if size else whole(x)

    def denoise(y: np.ndarray, sigma: float) -> np.ndarray:
        x = reflected(y / 127.5 - 1, size).astype(np.float32)
        x0 = np.asarray(program(prior, x, jnp.float32(sigma / 127.5)), np.float64)
        return 127.5 * (x0[: y.shape[0], : y.shape[1]] + 1)

    return denoise


def lifted(denoise: Denoise, draws: int = DRAWS) -> Denoise:
    """A denoiser of colours on grey values (h, w, 1), by the noise law that it knows; see the module."""

    def grey(y: np.ndarray, sigma: float) -> np.ndarray:
        rng, wide, found = np.random.default_rng(0), np.sqrt(3) * sigma, []
        for _ in range(draws):
            z = rng.standard_normal((*y.shape[:2], 3))
            found.append(denoise(y + wide * (z - z.mean(-1, keepdims=True)), wide))
        return np.mean(found, 0).mean(-1, keepdims=True)

    return grey


def loaded(path: str) -> tuple[dict[str, Denoise], int]:
    """The prior of a checkpoint as a denoiser, and as the mean of its eight, by the names of rows; its channels."""
    path = priors.place(path)
    card = weights.read_card(path, "prior")
    priors.require_pictures(card, path)
    rows, columns, channels = card["shape"]
    free = weights.any_size(card)
    if not free and rows != columns:
        raise ValueError(f"--prior is of pictures of {rows} x {columns}; give one of squares, or of any size")
    prior = weights.load_prior(path, shape=(rows, columns, channels)) if free else weights.load_prior(path)
    size = 0 if free else rows
    return {OURS: one_step(prior, size), EIGHT: one_step(di.denoisers.symmetric(prior), size)}, channels


def total_variation(y: np.ndarray, sigma: float) -> np.ndarray:
    """Source: Chambolle 2004, doi:10.1023/B:JMIV.0000011325.36760.1e; scikit-image's."""
    return 255 * denoise_tv_chambolle(y / 255, TV * sigma / 255, channel_axis=-1, max_num_iter=200).reshape(y.shape)


def nonlocal_means(y: np.ndarray, sigma: float) -> np.ndarray:
    """Source: Buades et al. 2005, doi:10.1109/CVPR.2005.38; scikit-image's, in its fast form."""
    known = {"h": NLM * sigma / 255, "sigma": sigma / 255, "patch_size": 5, "patch_distance": 6}
    return 255 * denoise_nl_means(y / 255, **known, fast_mode=True, channel_axis=-1).reshape(y.shape)


def bm3d(y: np.ndarray, sigma: float) -> np.ndarray:
    """Source: Dabov et al. 2007, doi:10.1109/TIP.2007.901238, and CBM3D; the revision of Mäkinen et al. 2020."""
    import bm3d as package

    profile = package.BM3DProfile()
    profile.num_threads = 1  # with more its results differ from run to run
    run = package.bm3d_rgb if y.shape[-1] == 3 else package.bm3d
    return 255 * np.asarray(run(y / 255, sigma / 255, profile)).reshape(y.shape)


def dncnn(path: str) -> Denoise:
    """The network of one sigma, `TRAINED`."""
    params, program = baselines.load_dncnn(path), jax.jit(baselines.dncnn)
    return lambda y, sigma: 255 * np.asarray(program(params, (y / 255).astype(np.float32)), np.float64)


def classical() -> dict[str, Method]:
    """What needs no weights; BM3D where it is installed."""
    skimage = f"scikit-image {importlib.metadata.version('scikit-image')}"
    rows = {
        "noise": Method(lambda y, sigma: y),
        "total variation": Method(total_variation, f"{skimage}, {TV}"),
        "non-local means": Method(nonlocal_means, f"{skimage}, {NLM}"),
    }
    if importlib.util.find_spec("bm3d"):
        rows[REFERENCE] = Method(bm3d, f"bm3d {importlib.metadata.version('bm3d')}")
    return rows


def cases(path: str, channels: int, sigma: float, count: int, seed: int) -> list[Case]:
    """The pictures of a set, each with its own noise, which depends on `seed` and on its place in the set alone."""
    folder = str(Path(path) / "HR") if (Path(path) / "HR").is_dir() else path
    found = []
    for place, record in zip(range(count), data.catalogue(folder).records()):
        try:
            truth = data.decode(record.source, None, channels).astype(np.float64)
        except OSError as error:
            raise ValueError(f"--pictures: {record.name} cannot be read: {error}") from None
        noise = np.random.default_rng([seed, place]).standard_normal(truth.shape)
        found.append(Case(record.name, truth, truth + sigma * noise))
    return found


@jax.jit
def scores(truth, x):
    """PSNR in dB and SSIM of a result, clipped to [0, 255]."""
    x = jnp.clip(x, 0, 255)
    return image.psnr(truth, x, (0, 255)), image.ssim(truth, x, (0, 255))


class Kept(published.Kept):
    """`(method, name, case, sigma) -> (PSNR, SSIM)`; what has a version is looked up in a file, and noted there."""

    def __call__(self, method: Method, name: str, case: Case, sigma: float) -> list[float]:
        def score() -> list[float]:
            x = method.denoise(case.y, sigma)
            return [float(value) for value in scores(*map(np.float32, (case.truth, x)))]

        key = f"{name}, {method.version}, {sigma:g}, {hashlib.sha256(case.y.tobytes()).hexdigest()[:16]}"
        return super().__call__(key, score) if method.version else score()


def cell(found: np.ndarray, reference: np.ndarray | None) -> str:
    """Means over the pictures of (PSNR, SSIM), (n, 2), and the paired difference of PSNR with its interval."""
    psnr, ssim = found.mean(0)
    if reference is None:
        return f"{psnr:.2f}  {ssim:.4f}"
    mean, half = interval(found[:, 0] - reference[:, 0])
    return f"{psnr:.2f} ({mean:+.2f} ± {half:.2f})  {ssim:.4f}"


class Part(NamedTuple):
    """Pictures of so many channels, at these sigmas, by these rows."""

    channels: int
    sigmas: list[float]
    rows: dict[str, Method]


def parts(options: SimpleNamespace) -> list[Part]:
    """Colour and grey; the prior is in the grey part by its own noise law, and in no colour part where it is grey."""
    (ours, channels), rows = loaded(options.prior), classical()
    sigmas = list(map(float, options.sigmas))
    found = [Part(channels, sigmas, rows | {name: Method(denoise) for name, denoise in ours.items()})]
    if options.dncnn:
        grey = {name: Method(denoise if channels == 1 else lifted(denoise)) for name, denoise in ours.items()}
        found.append(Part(1, [TRAINED], {**rows, "DnCNN": Method(dncnn(options.dncnn)), **grey}))
    return found


def shown(rows: dict[str, Method], sigmas: list[float], found: dict[tuple[str, float], np.ndarray]) -> str:
    """A line a method, a column a sigma."""
    lines = [("", *(f"sigma {sigma:g}" for sigma in sigmas))]
    for name in rows:
        beside = [None if name == REFERENCE else found.get((REFERENCE, sigma)) for sigma in sigmas]
        lines.append((name, *(cell(found[name, sigma], other) for sigma, other in zip(sigmas, beside))))
    return published.columns(lines)


def judged(part: Part, path: str, options: SimpleNamespace, kept: Kept) -> tuple[str, list[np.ndarray]]:
    """One set's table, and all PSNRs of the methods."""
    cases_of = {sigma: cases(path, part.channels, sigma, options.count, options.seed) for sigma in part.sigmas}
    count, kind, found = len(cases_of[part.sigmas[0]]), "grey" if part.channels == 1 else "colour", {}
    title = f"{Path(path).name}, {count} {kind} pictures"
    with tqdm(total=count * len(part.sigmas) * len(part.rows), unit="result", desc=title) as bar:
        for name, method in part.rows.items():
            for sigma, chosen in cases_of.items():
                scored = [(kept(method, name, case, sigma), bar.update())[0] for case in chosen]
                found[name, sigma] = np.asarray(scored)
    tried = [each[:, 0] for (name, _), each in found.items() if name != "noise"]
    return f"{title}\n{shown(part.rows, part.sigmas, found)}", tried


def main(options: SimpleNamespace) -> published.Table:
    kept, chosen = Kept(options.kept), parts(options)
    found = [judged(part, path, options, kept) for part in chosen for path in options.pictures]
    what = "PSNR / dB (its difference to BM3D's over the same pictures and noise, mean ± 1.96 s / sqrt(n))  SSIM"
    missing = [] if REFERENCE in chosen[0].rows else ["BM3D is left out, for it is not installed: pip install bm3d"]
    text = "\n\n".join([what, *(text for text, _ in found), *missing, remembered()])
    return published.table(text, [each for _, tried in found for each in tried])


def remembered() -> str:
    """Other pictures' published numbers."""
    told = "; ".join(
        f"{name} {', '.join(str(Told(value, False)) for value in values)}" for name, values in REMEMBERED.items()
    )
    return f"Published on other pictures, CBSD68, at 15, 25, 50: {told}."


if __name__ == "__main__":
    published.run(main, OPTIONS)
