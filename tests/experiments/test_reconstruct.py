"""The main job as a user starts it: one quick run end to end, its resumption, and what it says to bad input."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import forking
import numpy as np
import pytest
from PIL import Image

import diffinv as di
from diffinv import process

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


def start(*arguments, **environment):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "experiments.reconstruct", *map(str, arguments)]
    tests = os.environ.get("DIFFINV_TEST_CACHE", "") or str(ROOT / ".pytest_cache")
    cache = os.environ.get("DIFFINV_CACHE", "") or os.path.join(tests, "xla")  # the continuous check's holds some
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "DIFFINV_CACHE": cache, **environment}
    env.pop("XLA_FLAGS", None)
    return forking.run(command, env)


def refused(*arguments):
    """The single line of an error."""
    done = start(*arguments)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    arguments = ("--config=configs/reconstruct.py:smoke", "--config.name=smoke", f"--out={out}")
    return arguments, start(*arguments), out / "smoke"


@pytest.mark.slow
def test_smoke_leaves_a_whole_report(smoke):
    _, done, folder = smoke
    assert done.returncode == 0, done.stderr
    assert str(folder / "index.html") in done.stdout
    results = json.loads((folder / "results.json").read_text())
    assert [r["picture"] for r in results["records"]] == ["astronaut", "cat"]
    for record in results["records"]:
        assert set(record["methods"]) == {"DPS", "DAPS", "ReGuidance(DAPS)"}
        for case in record["methods"].values():
            assert all(np.isfinite(case[k]) for k in ("psnr", "ssim", "feature_distance", "residual", "seconds"))
            with Image.open(folder / case["image"]) as image:
                assert image.size == (64, 64) and image.mode == "RGB"
            assert case["floor"] == pytest.approx(0.05 * np.sqrt(3 * (64**2 - 16**2)), rel=0.03)
        nfe = {name: case["nfe"] for name, case in record["methods"].items()}
        assert nfe == {"DPS": 10, "DAPS": 25, "ReGuidance(DAPS)": 25 + 24 + 23}
    page = (folder / "index.html").read_text()
    assert "data:image/png;base64" in page and not re.search(r'(src|href)="(?!data:|#)', page)
    with Image.open(folder / "gallery.png") as gallery:
        assert gallery.size[0] > 300


@pytest.mark.slow
def test_the_same_command_goes_on(smoke):
    arguments, _, folder = smoke
    before = json.loads((folder / "results.json").read_text())
    stored = {**before, "records": before["records"][:1]}
    (folder / "results.json").write_text(json.dumps(stored))
    again = start(*arguments)
    assert again.returncode == 0, again.stderr
    after = json.loads((folder / "results.json").read_text())
    for old, new in zip(before["records"], after["records"], strict=True):
        for name, case in old["methods"].items():
            same = {k: v for k, v in case.items() if "seconds" not in k}
            assert same == {k: v for k, v in new["methods"][name].items() if "seconds" not in k}


@pytest.mark.slow
def test_another_configuration_keeps_out(smoke):
    arguments, _, _ = smoke
    line = refused(*arguments, "--config.sigma_y=0.1")
    assert "sigma_y" in line and "--config.name" in line


@pytest.mark.slow
def test_help_is_worth_reading():
    text = start("--help").stdout
    for word in ("--images", "--config", "--out", "box_inpainting", "reguidance", "runs/"):
        assert word in text, word


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.task=box_inpaintin"], ["box_inpaintin", "did you mean 'box_inpainting'"]),
        (["--config.solver=regudance"], ["regudance", "did you mean 'reguidance'"]),
        (["--config.base=reguidance"], ["config.base"]),
        (["--config.sigma_why=1"], ["sigma_why"]),
        (["--config.sigma_y=high"], ["sigma_y"]),
        (["--config=configs/missing.py"], ["missing.py"]),
        (["--config=configs/reconstruct.py:quick"], ["quick", "smoke"]),
        (["--images=nowhere/*.png"], ["nowhere", "no image matches"]),
        (["--config.prior=nowhere/prior"], ["nowhere/prior"]),
        (["surplus"], ["surplus"]),
    ],
)
def test_bad_input_is_one_line(arguments, words):
    line = refused(*arguments)
    for word in words:
        assert word in line


@pytest.fixture
def copied(tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(di.weights.embedded() + suffix, tmp_path / f"prior{suffix}")
    return tmp_path / "prior"


@pytest.mark.parametrize("damage", ["truncated", "tampered", "weights missing", "card missing", "foreign card"])
def test_damaged_weights_are_refused(copied, damage):
    weights, card = Path(f"{copied}.safetensors"), Path(f"{copied}.json")
    content = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(content[:-100])
    elif damage == "tampered":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "weights missing":
        weights.unlink()
    elif damage == "card missing":
        card.unlink()
    else:
        card.write_text("[1, 2]")
    with pytest.raises((ValueError, FileNotFoundError), match="prior"):
        di.weights.load_prior(str(copied), process.VP())


def test_the_embedded_prior_is_what_its_card_says():
    card = di.weights.read_card(di.weights.embedded())
    prior = di.weights.load_prior(di.weights.embedded(), process.VP())
    assert prior.shape == tuple(card["shape"]) == (32, 32, 3)
    assert os.path.getsize(di.weights.embedded() + ".safetensors") <= 20 * 2**20
    for field in ("parametrisation", "process", "range", "data", "data_licence", "steps", "hardware", "seconds"):
        assert card[field] not in (None, ""), field
    for field in ("held_out_loss", "sample_quality"):
        assert card[field] not in (None, ""), field


def test_the_embedded_prior_denoises_photographs():
    """Its mean error at sigma 0.2 is under a third of the noise's, on pictures it never saw."""
    import jax

    from experiments.common import pictures

    prior = di.weights.load_prior(di.weights.embedded(), process.EDM())
    x0 = pictures.photographs(32, 8).pixels[::3]
    noisy = x0 + 0.2 * np.random.default_rng(0).standard_normal(x0.shape).astype(np.float32)
    denoised = jax.jit(jax.vmap(lambda x: prior.denoise(x, np.float32(0.2 / 80))))(noisy)
    assert np.mean((denoised - x0) ** 2) < 0.2**2 / 3
