"""The judge of a prior: a consistency model is sampled in one step and in two, and its card gets both numbers."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffinv import checkpoint
from diffinv.nn import unet

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 8, "patch": 4}


@pytest.fixture
def saved(tmp_path):
    """A consistency model with drawn weights, and 8 pictures to compare it with."""
    net = unet.UNet(**{name: tuple(v) if isinstance(v, list) else v for name, v in FIELDS.items()}, out_channels=3)
    params = net.init(jax.random.key(0), jnp.zeros((32, 32, 3)), jnp.zeros(()))
    card = {
        "name": "made",
        "architecture": {"name": "unet", **FIELDS, "out_channels": 3},
        "parametrisation": {"parametrisation": "edm", "sigma_data": 0.5},
        "process": {"name": "EDM", "sigma_max": 80.0},
        "shape": [32, 32, 3],
        "consistency": {"name": "ect", "second_time": False, "middle": 0.5},
    }
    checkpoint.save(str(tmp_path / "made"), jax.tree.map(np.asarray, params), card)
    (tmp_path / "pictures").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path


@pytest.mark.slow
def test_a_consistency_model_is_judged_in_one_step_and_in_two(saved):
    command = [
        sys.executable,
        "-m",
        "experiments.evaluate",
        f"--data={saved / 'pictures'}",
        f"--prior={saved / 'made'}",
    ]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = lambda *more: subprocess.run(
        [*command, *more], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600
    )
    done = run("--count=8", "--batch=4", "--card", f"--grid={saved}/{{steps}}.png")
    assert done.returncode == 0, done.stderr
    notes = checkpoint.read_card(str(saved / "made"))["sample_quality"]
    assert [f"of {n} consistency step" in note["name"] for n, note in zip((1, 2), notes)] == [True, True]
    assert notes[0]["value"] != notes[1]["value"] and notes[0]["floor"] == notes[1]["floor"] > 0
    assert all(str(note["value"]) in done.stdout for note in notes)
    assert (saved / "1.png").exists() and (saved / "2.png").exists()
    wrong = run("--count=8", "--steps=3")
    assert wrong.returncode != 0 and "--steps is 3" in wrong.stderr and "Traceback" not in wrong.stderr
