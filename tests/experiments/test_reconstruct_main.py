"""`experiments.reconstruct` from its flags to its report, with a bench that answers at once."""

import importlib
import json
from functools import cache
from types import SimpleNamespace

import jax
import nets
import numpy as np
import pytest
from PIL import Image

from configs import reconstruct as configuration
from diffinv import schema, weights
from experiments.common import runtime
from experiments.restore import bench

CARD = {
    "architecture": {"name": "unet", **nets.TINY, "dtype": "float32"},
    "parametrisation": {"parametrisation": "edm", "sigma_data": 0.4},
    "process": {"name": "EDM", "sigma_max": 40.0},
    "shape": [8, 8, 3],
}


def loaded():
    """The command, whose flags are its own and none of this process's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "config_flag", lambda *_: SimpleNamespace(value=None))
        patch.setattr(runtime, "flag", lambda name, default, field: SimpleNamespace(value=default))
        return importlib.import_module("experiments.reconstruct")


command = loaded()
tiny = cache(nets.tiny)


class Bench:
    """Two pictures a group; what it restores is the truth, frozen or far away where `bad` says so."""

    bad: dict = {}
    asked: list = []

    def __init__(self, config, prior, task, truth):
        self.task, self.truth, self.group = task, truth, 2
        self.measurements = SimpleNamespace(y=truth)

    def members(self, group):
        return np.arange(2 * group, 2 * group + 2) % len(self.truth)

    def restore(self, name, group):
        self.tell("compiling")
        self.asked.append((self.task, name, group))
        cases = []
        for i in self.members(group):
            image = bench.pixels(self.truth[i])
            case = {"image": image, "psnr": 20.0, "residual": 1.0, "floor": 1.0, "largest": 1.0, "first_bad_step": -1}
            cases.append(case | self.bad.get((name, int(i)), {}))
        return cases


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a tiny prior and three pictures, and the bench above."""
    prior(tmp_path)
    for i in range(3):
        picture(tmp_path, i, 40 * i)
    monkeypatch.setattr(command, "Bench", Bench)
    monkeypatch.setattr(Bench, "asked", [])
    monkeypatch.setattr(Bench, "bad", {})
    return tmp_path


def prior(folder, scale=1.0):
    params = jax.tree.map(lambda leaf: leaf * scale, tiny()[1])
    weights.save(str(folder / "prior"), params, CARD)


def picture(folder, i, level):
    (folder / "in").mkdir(exist_ok=True)
    pixels = np.full((8, 8, 3), level, np.uint8)
    pixels[: i + 1] = 200
    Image.fromarray(pixels).save(folder / "in" / f"p{i}.png")


def run(place, monkeypatch, images="in", fresh=False, out="runs", **changes):
    """The exit status of the command, whose configuration has these changes."""
    config = configuration.get_config()
    values = {"prior": str(place / "prior"), "solver": "dps,ddrm", "task": "box_inpainting"} | changes
    config.update({"box": {"size": 4, "top": 2, "left": 2}} | values)
    schema.require(command.FIELDS, config.to_dict())
    given = {"CONFIG": config, "IMAGES": str(place / images), "FRESH": fresh, "OUT": str(place / out)}
    for name, value in given.items():
        monkeypatch.setattr(command, name, SimpleNamespace(value=value))
    return command.main()


def results(place, name="x"):
    return json.loads((place / "runs" / name / "results.json").read_text())["records"]


def test_a_run_is_kept_until_something_changes(place, monkeypatch, capsys):
    go = lambda **changes: run(place, monkeypatch, name="x", **changes)
    assert go() == 0 and len(Bench.asked) == 4
    out = capsys.readouterr().out
    assert out.rstrip().splitlines()[-1] == f"report: {place / 'runs' / 'x' / 'index.html'}"
    assert go() == 0 and len(Bench.asked) == 4
    picture(place, 2, 99)
    assert go() == 0 and Bench.asked[4:] == [("box_inpainting", "dps", 1), ("box_inpainting", "ddrm", 1)]
    assert "p2: not the picture that it was; restored again" in capsys.readouterr().out
    prior(place, 1.01)
    with pytest.raises(ValueError, match="holds a run with another prior .*--fresh"):
        go()
    assert go(fresh=True) == 0 and len(Bench.asked) == 10
    with pytest.raises(ValueError, match="sigma_y = 0.05, not 0.1"):
        go(sigma_y=0.1)


def test_another_prior_has_another_folder_by_default(place, monkeypatch):
    run(place, monkeypatch)
    prior(place, 1.01)
    run(place, monkeypatch)
    assert len(list((place / "runs").iterdir())) == 2 and len(Bench.asked) == 8


def test_some_that_failed_are_counted(place, monkeypatch, capsys):
    monkeypatch.setattr(Bench, "bad", {("ddrm", 0): {"first_bad_step": 3}, ("dps", 1): {"largest": 1e6}})
    assert run(place, monkeypatch, name="x") == 0
    out = capsys.readouterr().out
    assert out.rstrip().endswith("; 2 of 6 reconstructions failed, marked in the table") and out.count("1 ⚠") == 2
    assert run(place, monkeypatch, name="x") == 0  # kept, and still said
    assert "2 of 6 reconstructions failed" in capsys.readouterr().out


def test_where_all_failed_the_status_says_so(place, monkeypatch, capsys):
    monkeypatch.setattr(Bench, "bad", {(n, i): {"psnr": float("nan")} for n in ("dps", "ddrm") for i in range(3)})
    assert run(place, monkeypatch, name="x") == 2
    assert "6 of 6 reconstructions failed" in capsys.readouterr().out and len(results(place)) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "super_resolution", "factor": 3}, "config.task is super_resolution"),
        ({"box": {"size": 8, "top": 0, "left": 0}}, "config.box.size is 8, which hides the whole picture"),
        ({"task": "gaussian_blur"}, "config.blur.size is 9"),
        ({"out": "prior.json/x"}, "no file can be written"),
        ({"images": "none"}, "no image matches"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_restored(place, monkeypatch, changes, words):
    with pytest.raises((ValueError, OSError), match=words):
        run(place, monkeypatch, **changes)
    assert not Bench.asked
