"""The page of scale-spaces: its quick run end to end, and its plots."""

import json
import os
import sys

import forking
import jax
import numpy as np
import pytest
from training_command import FLAGS

from diffinv.scalespace import reverse
from experiments.scales import page as scalespace_page
from experiments.scales import reverse as scalespace_reverse

pytestmark = pytest.mark.long


@pytest.mark.slow
def test_the_quick_page_agrees_with_the_truth_table(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.scalespace",
        "--config=configs/scalespace.py:smoke",
        f"--out={tmp_path}",
    ]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    done = forking.run(command, env)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "scalespace-smoke" / "index.html").read_text()
    results = json.loads((tmp_path / "scalespace-smoke" / "results.json").read_text())["patterns"]
    assert ", 0 verdicts off the truth table" in done.stdout and "Every verdict agrees" in page
    assert page.count("<svg") == 4 and page.count("data:image/png") == 6 and "http" not in page
    verdict = {column: {row["name"]: row["verdict"] for row in rows} for column, rows in results.items()}
    assert verdict["VP"]["steady"] == "holds" and verdict["heat dissipation"]["steady"] == "fails"
    assert verdict["osmosis"]["average_grey"] == "holds" and verdict["relay"]["shifts"] == "fails"


def test_curves_leave_gaps_and_name_their_axis():
    svg = scalespace_page.curves(
        "a < b", [0.0, 0.5, 1.0], {"one": [1.0, np.nan, 3.0], "two": [0.0, 10.0, 100.0]}, log=True
    )
    assert "a &lt; b" in svg and svg.count("stroke-width") == 2
    first, second = [part for part in svg.split("<path") if "stroke-width" in part]
    assert first.count("M") == 2 and first.count("L") == 0 and second.count("L") == 1
    assert scalespace_page._ticks(0.0, 7.5) == [0, 2, 4, 6]


def test_findings_of_the_reverse_side_say_what_follows():
    near = scalespace_reverse._close("a < b", 1.02, 1.0, 0.03)
    far = scalespace_reverse._close("c", 1.05, 1.0, 0.03)
    assert near.verdict == "holds: 2.0 % off, 3 % allowed" and far.verdict.startswith("fails: 5.0 %")
    rows = np.random.default_rng(0).standard_normal((2, 40, 3))
    bands = scalespace_reverse.matched(jax.random.key(0), "t = 1", rows[0], rows[1] + 3)
    assert [band.verdict for band in bands] == ["fails", "fails"]
    memory = reverse.memorisation(np.ones((1, 30)), np.full((1, 30), 2.0))
    told = scalespace_reverse.remembered("net", memory, ["sigma 1"])
    assert told[0].verdict == "memorises" and told[0].value == "train 1"
    page = scalespace_page.findings([near, *bands, *told])
    assert page.count("<tr>") == 5 and "a &lt; b" in page


def test_a_strip_shows_each_picture_in_its_own_range():
    tag = scalespace_page.strip("VP", np.random.default_rng(0).uniform(-50, 50, (2, 3, 8, 8, 1)), "about")
    assert tag.startswith("<figure") and 'width="210"' in tag and 'height="140"' in tag
