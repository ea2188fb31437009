"""`experiments.evaluate` as it is run: killed, shared, tampered with, verified; and what it refuses.

A network that is traced in no time, four pictures of 8 x 8, and solvers of a few steps.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import time

import forking
import jax
import nets
import numpy as np
import pytest
import training_command
from PIL import Image

from diffinv import weights
from diffinv.nn import convnet
from experiments.evaluation import accounts, shards, verification

TASKS = "x2 = super_resolution factor=2"
SOLVERS = "zero_filled, ddrm, reguidance(ddrm)"
CELLS = [f"x2 / {solver}" for solver in ("zero-filled", "DDRM", "ReGuidance(DDRM)")]
TIMES = {"seconds"}
NETWORK = {"channels": 8, "multipliers": (1,), "blocks": 1, "patch": 1}
CARD = {
    "architecture": {"name": "conv", **NETWORK, "dtype": "float32"},
    "parametrisation": {"parametrisation": "edm", "sigma_data": 0.4},
    "process": {"name": "EDM", "sigma_max": 40.0},
    "shape": [8, 8, 3],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny prior and four pictures."""
    folder = tmp_path_factory.mktemp("table")
    weights.save(str(folder / "prior"), nets.drawn(convnet.ConvUNet(**NETWORK)), CARD)
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / "in" / f"p{i}.png")
    return folder


def command(place, out, *more, tasks=TASKS, solvers=SOLVERS):
    start = [sys.executable, "-m", "experiments.evaluate", "--config=configs/tables/reguidance.py:smoke"]
    start += [f"--config.prior={place / 'prior'}", f"--config.data={place / 'in'}", "--config.pictures=4"]
    start += ["--config.size=8", "--config.draws=2", "--config.steps=2", "--config.reguidance.steps=3"]
    start += ["--config.group=2", "--config.name=t"]
    return [*start, f"--config.tasks={tasks}", f"--config.solvers={solvers}", f"--out={out}", *more]


def run(place, out, *more, devices=1, **texts):
    return forking.run(command(place, out, *more, **texts), training_command.environment(DIFFINV_DEVICES=str(devices)))


def scores(out, name="t"):
    """Of every cell and item, without times."""
    path = out / name / "ledger.json"
    found = {}
    for cell in json.loads(path.read_text())["cells"]:
        for item, values in accounts.scores_of(path, cell["cell"]).items():
            found[cell["cell"], item] = {name: value for name, value in values.items() if name not in TIMES}
    return found


def pictures(out):
    return {
        (folder.parent.name, folder.name, item): result.x
        for folder in sorted((out / "t" / "cells").glob("*/*"))
        for item, result in shards.read(folder)[0].items()
    }


@pytest.fixture(scope="module")
def whole(place):
    """A run that was left alone."""
    done = run(place, place / "whole")
    assert done.returncode == 0, done.stderr
    return done


def same(place, out):
    """Every score and every pixel are those of the run that was left alone."""
    assert scores(out) == scores(place / "whole")
    ours, theirs = pictures(out), pictures(place / "whole")
    assert ours.keys() == theirs.keys() and all((ours[key] == theirs[key]).all() for key in ours)


def test_a_table_comes_in_every_form(place, whole):
    folder = place / "whole" / "t"
    names = {path.name for path in folder.iterdir()}
    assert {"index.html", "table.md", "table.tex", "table.csv", "ledger.json", "cells"} <= names
    content = json.loads((folder / "ledger.json").read_text())
    assert [cell["cell"] for cell in content["cells"]] == CELLS
    assert all(np.shape(cell["scores"]["psnr"]) == (4, 2) for cell in content["cells"])
    made = content["cells"][1]["made_by"]
    assert len(made) == 1 and made[0]["platform"] == "cpu" and made[0]["jax"] == jax.__version__
    assert content["prior"]["sha256"] and len(content["pictures"]) == 4
    assert content["cells"][1]["settings"]["weights"] and content["cells"][1]["bytes_predicted"] > 0
    told = whole.stdout
    assert "4 pictures of 8 x 8" in told and "| x2   | DDRM" in told and "ReGuidance(DDRM) - DDRM" in told
    assert "covered → nominal" in told and told.rstrip().splitlines()[-1].startswith("report: ")
    page = (folder / "index.html").read_text()
    assert page.count("<svg") == 2 and "worst: " in page and page.count("base64,") >= 9
    assert "\\begin{tabular}" in (folder / "table.tex").read_text()
    assert (folder / "table.csv").read_text().splitlines()[0].startswith("task,method,psnr,psnr_half")


@pytest.mark.slow
def test_open_settings_are_chosen_told_and_taken_again(place, tmp_path):
    """On a picture that is left out; by presets.json another run has the same scores, and chooses nothing."""
    title = "reguidance(ddrm) reguidance.rho=1|30"
    more = ["--config.first=1", "--config.pictures=3", "--config.draws=1", "--config.criterion=psnr"]
    ask = lambda out, *given: run(place, out, *more, *given, solvers=f"ddrm, {title}")
    assert "its settings are chosen by 1 pictures" in ask(tmp_path / "a", "--plan").stdout
    early = ask(tmp_path / "a", "--verify=x2 / ReGuidance(DDRM)")
    assert early.returncode == 1 and "whose settings are yet to be chosen" in early.stderr
    done, folder = ask(tmp_path / "a"), tmp_path / "a" / "t"
    assert done.returncode == 0, done.stderr
    chosen = json.loads((folder / "presets.json").read_text())["x2"][title]
    content = json.loads((folder / "ledger.json").read_text())
    label = f"x2 / ReGuidance(DDRM), rho {chosen['reguidance.rho']}"
    assert [cell["cell"] for cell in content["cells"]] == ["x2 / DDRM", label]
    best = max(content["tried"], key=lambda row: row["psnr"])
    assert len(content["tried"]) == 2 and best["choice"] == "chosen"
    assert "## What was tried" in (folder / "table.md").read_text() and (folder / "overview.png").stat().st_size
    other = ask(tmp_path / "b", f"--config.presets={folder / 'presets.json'}")
    assert other.returncode == 0 and "choosing" not in other.stderr, other.stderr
    assert scores(tmp_path / "b") == scores(tmp_path / "a")


def test_nothing_is_computed_twice(place, whole):
    before = {path: path.stat().st_mtime_ns for path in (place / "whole").rglob("*.npz")}
    again = run(place, place / "whole")
    assert again.returncode == 0 and "compiling" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (place / "whole").rglob("*.npz")} == before
    plan = run(place, place / "whole", "--plan", "--config.draws=3")
    assert "12 of 36 items are to be computed" in plan.stdout


@pytest.mark.slow
def test_a_smaller_table_grows_to_the_same_one(place, whole):
    out = place / "grown"
    assert run(place, out, "--config.pictures=3", "--config.draws=1", solvers="ddrm").returncode == 0
    assert run(place, out).returncode == 0
    ours, theirs = scores(out), scores(place / "whole")
    assert ours.keys() == theirs.keys()
    assert max(verification.apart(ours[key], theirs[key]) for key in ours) < 1e-4, "batches were cut otherwise"


@pytest.mark.slow
def test_devices_batches_and_order_do_not_matter(place, whole):
    out = place / "other"
    done = run(
        place, out, "--config.group=1", "--config.memory=1.0", devices=4, solvers="reguidance(ddrm), ddrm, zero_filled"
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = scores(out), scores(place / "whole")
    assert ours.keys() == theirs.keys()
    assert max(verification.apart(ours[key], theirs[key]) for key in ours) < 1e-4
    x, y = pictures(out), pictures(place / "whole")
    assert max(np.abs(x[key].astype(int) - y[key].astype(int)).max() for key in x) <= 20, "of 65535, to rounding"


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(place, whole):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"--coordinator=localhost:{probe.getsockname()[1]}"
    each = [command(place, place / "two", address, "--processes=2", f"--process={i}") for i in range(2)]
    done = forking.together(each, training_command.environment(DIFFINV_DEVICES="1"))
    assert [child.returncode for child in done] == [0, 0], done[0].stderr + done[1].stderr
    ours, theirs = scores(place / "two"), scores(place / "whole")
    assert ours.keys() == theirs.keys()
    assert max(verification.apart(ours[key], theirs[key]) for key in ours) < 1e-4
    assert [("report: " in child.stdout) for child in done] == [True, False]


@pytest.mark.slow
def test_parts_in_any_order_make_the_table_of_one(place, whole):
    out = place / "parts"
    last = run(place, out, "--part=1/2")
    assert last.returncode == 0 and "12 items are missing, of other parts" in last.stdout
    assert not (out / "t" / "ledger.json").exists()
    first = run(place, out, "--part=0/2")
    assert first.returncode == 0 and "report: " in first.stdout
    ours, theirs = scores(out), scores(place / "whole")
    assert ours.keys() == theirs.keys()
    assert max(verification.apart(ours[key], theirs[key]) for key in ours) < 1e-4
    for part in ("2/2", "1", "a/b", "-1/2"):
        assert "--part is" in training_command.error(*_said(run(place, out, f"--part={part}")))


def _said(done):
    return done.stderr, done.returncode


def test_a_tampered_shard_is_named_and_computed_again(place, whole):
    out = place / "tampered"
    shutil.copytree(place / "whole", out)
    victim = sorted((out / "t" / "cells" / "x2" / "ddrm").glob("*.npz"))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    done = run(place, out)
    assert done.returncode == 0 and victim.name in done.stdout and "computed again" in done.stdout
    same(place, out)


@pytest.mark.slow
def test_a_cell_is_verified(place, whole):
    out = place / "verified"
    shutil.copytree(place / "whole", out)
    done = run(place, out, "--verify=x2 / ReGuidance(DDRM)")
    assert done.returncode == 0 and "8 items again, the same bits" in done.stdout
    ledger = out / "t" / "ledger.json"
    other = place / "other.json"
    other.write_text(ledger.read_text())
    against = run(place, place / "empty", "--verify=x2 / DDRM", f"--against={other}")
    assert against.returncode == 0 and "8 items again, the same" in against.stdout
    content = json.loads(ledger.read_text())
    content["cells"][1]["scores"]["psnr"][3][1] += 0.1
    other.write_text(json.dumps(content))
    against = run(place, place / "empty", "--verify=x2 / DDRM", f"--against={other}")
    assert against.returncode == 1 and "NOT the same" in against.stdout
    assert "did you mean 'x2 / DDRM'?" in training_command.error(*_said(run(place, out, "--verify=x2 / DDR")))
    assert "of which nothing is kept" in training_command.error(
        *_said(run(place, place / "empty", "--verify=x2 / DDRM"))
    )


def test_what_a_cell_depends_on_may_not_change(place, whole):
    out = place / "whole"
    line = training_command.error(*_said(run(place, out, "--config.sigma_y=0.2")))
    assert "x2 / zero-filled was computed with sigma_y = 0.05, not 0.2" in line and "another --config.name" in line
    line = training_command.error(*_said(run(place, out, tasks=TASKS.replace("factor=2", "factor=4"))))
    assert "x2 / zero-filled was computed with task = " in line
    line = training_command.error(*_said(run(place, out, "--config.prior=prior32", "--config.size=8")))
    assert "weights" in line or "shape" in line


def test_what_is_missing_is_said(place):
    out = place / "refused"
    line = training_command.error(*_said(run(place, out, "--config.prior=", "--config.published=dps_ffhq")))
    assert "config.prior is ''" in line and "ffhq_10m.pt" in line and "import_checkpoint" in line
    line = training_command.error(*_said(run(place, out, "--config.prior=none")))
    assert "none" in line
    line = training_command.error(*_said(run(place, out, "--config.pictures=99")))
    assert "holds 4 pictures" in line
    line = training_command.error(*_said(run(place, out, tasks="super_resolution factor=3")))
    assert "config.task is super_resolution, on pictures of 8 x 8" in line
    assert not list(out.rglob("*.npz"))


def test_what_a_solver_cannot_do_stands_in_the_table(place):
    """The singular values of a blur by reflection are not known."""
    done = run(place, place / "cannot", tasks="deblur blur.size=5", solvers="ddrm, zero_filled, reguidance(ddrm)")
    assert done.returncode == 0, done.stderr
    table = (place / "cannot" / "t" / "table.md").read_text()
    assert "not possible: " in table and re.search(r"deblur .*zero-filled", table)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_table(place, whole):
    """Twenty kills at random moments; each start goes on from what the last one kept."""
    out, draw = place / "killed", random.Random(0)
    environment = training_command.environment(DIFFINV_DEVICES="1")

    def kill(child):
        time.sleep(draw.uniform(0.1, 3))
        with contextlib.suppress(ProcessLookupError):  # it had no more to do
            os.kill(child, signal.SIGKILL)

    kills = [forking.together([command(place, out)], environment, meanwhile=kill)[0].returncode for _ in range(20)]
    assert kills.count(-signal.SIGKILL) >= 3
    done = run(place, out)
    assert done.returncode == 0, done.stderr
    same(place, out)
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", shards.DAMAGED))]
