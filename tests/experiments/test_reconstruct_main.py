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
from diffinv.nn import convnet
from experiments.common import runtime
from experiments.restore import bench, part

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

    def __init__(self, config, prior, task, pictures, degraded=False, scans=()):
        self.task, self.truth, self.group, self.prior = task, pictures, 2, prior

    def members(self, group):
        return np.arange(2 * group, 2 * group + 2) % len(self.truth)

    def seen(self, i):
        return bench.pixels(self.truth[i])

    def restore(self, name, group):
        self.tell("compiling")
        self.asked.append((self.task, name, group))
        cases = []
        for i in self.members(group):
            image = bench.pixels(self.truth[i])
            case = {
                "x": self.truth[i],
                "image": image,
                "psnr": 20.0,
                "residual": 1.0,
                "floor": 1.0,
                "largest": 1.0,
                "first_bad_step": -1,
            }
            cases.append(case | self.bad.get((name, int(i)), {}))
        return cases


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a tiny prior and three pictures, and the bench above."""
    prior(tmp_path)
    for i in range(3):
        picture(tmp_path, i, 40 * i)
    monkeypatch.setattr(part, "Bench", Bench)
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


def run(place, monkeypatch, images="in", fresh=False, out="runs", degraded=False, **changes):
    """The exit status of the command, whose configuration has these changes."""
    config = configuration.get_config()
    values = {"prior": str(place / "prior"), "solver": "dps,ddrm", "task": "box_inpainting"} | changes
    config.update({"pictures": 8, "box": {"size": 4, "top": 2, "left": 2}} | values)
    schema.require(command.FIELDS, config.to_dict())
    given = {"CONFIG": config, "IMAGES": images and str(place / images), "FRESH": fresh, "OUT": str(place / out)}
    given |= {"DEGRADED": degraded, "MASK": "", "KERNEL": "", "KSPACE": ""}
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
        ({"task": "gaussian_blur"}, "config.blur.size is 31"),
        ({"out": "prior.json/x"}, "no file can be written"),
        ({"images": "none"}, "no image matches"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_restored(place, monkeypatch, changes, words):
    with pytest.raises((ValueError, OSError), match=words):
        run(place, monkeypatch, **changes)
    assert not Bench.asked


def test_the_main_job_runs_the_satellite_pictures_too(place, monkeypatch, capsys):
    standard = configuration.get_config()
    same = {name: standard[name] for name in ("task", "solver", "prior", "pictures")}
    assert run(place, monkeypatch, images="", name="x", **same, box=standard.box.to_dict()) == 0
    tasks = [record["task"] for record in results(place)]
    first = [f"photographs: {task}" for task in standard.task.split(",") for _ in range(standard.pictures)]
    assert tasks[: len(first)] == first and {task.split(":")[0] for task in tasks[len(first) :]} == {"satellite"}
    said = capsys.readouterr().out
    assert (
        "2 photographs of 256 x 256 under photo" in said and "8 satellite pictures of 64 x 64 under satellite64" in said
    )
    run(place, monkeypatch, images="", name="y", **{**same, "task": "bicubic"}, box=standard.box.to_dict())
    assert {record["task"] for record in results(place, "y")} == {"bicubic"}


def sized(place):
    """A prior of any size, beside pictures of several sizes, one of them of 16 bits, one with transparency."""
    net = convnet.ConvUNet(channels=4, multipliers=(1,), blocks=1)
    params = jax.jit(net.init)(jax.random.key(0), np.zeros((8, 8, 3), np.float32), np.float32(0))
    architecture = {"name": "conv", "channels": 4, "multipliers": [1], "blocks": 1, "patch": 2}
    architecture |= {"time_scale": 40.0, "remat": False, "dtype": "float32", "out_channels": 3}
    weights.save(str(place / "any"), params, {**CARD, "architecture": architecture})
    (place / "own").mkdir()
    draw = np.random.default_rng(0).integers
    Image.fromarray(draw(0, 2**16, (13, 22), dtype=np.uint16)).save(place / "own" / "a-deep.png")
    Image.fromarray(draw(0, 256, (9, 7, 4), dtype=np.uint8)).save(place / "own" / "b-clear.png")
    Image.fromarray(draw(0, 256, (9, 7, 3), dtype=np.uint8)).save(place / "own" / "c.png")


def read(path):
    """Its mode and its pixels."""
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


def test_own_pictures_keep_their_size_depth_and_kind(place, monkeypatch, capsys):
    sized(place)
    changes = {"prior": str(place / "any"), "task": "denoise", "solver": "dps", "name": "x", "pictures": 0}
    assert run(place, monkeypatch, images="own", **changes) == 0
    assert "3 pictures of 13 x 22 and 9 x 7" in capsys.readouterr().out
    assert [group for _, _, group in Bench.asked] == [0, 0]  # two shapes
    for record in results(place):
        (file,) = record["files"]
        assert file == f"restored/denoise/{record['picture']}-dps.png"
        made, given = read(place / "runs/x" / file), read(place / f"own/{record['picture']}.png")
        assert made[0] == given[0]
        np.testing.assert_array_equal(made[1], given[1])  # this bench restores the truth
        assert record["methods"]["DPS"]["image"] and "x" not in record["methods"]["DPS"]
    (place / "runs" / "x" / file).unlink()
    assert run(place, monkeypatch, images="own", **changes) == 0 and len(Bench.asked) == 3


def test_sides_that_the_factor_does_not_divide_are_extended_and_cropped_again(place, monkeypatch):
    sized(place)
    changes = {"prior": str(place / "any"), "task": "bicubic", "solver": "dps", "name": "x", "factor": 4, "pictures": 0}
    seen = []
    known = Bench.__init__
    monkeypatch.setattr(Bench, "__init__", lambda self, *a: (seen.append(a[3].shape[1:3]), known(self, *a))[1])
    assert run(place, monkeypatch, images="own", **changes) == 0
    assert seen == [(16, 24), (12, 8)]
    found = results(place)
    sizes = {each["picture"]: read(place / "runs/x" / each["files"][0])[1].shape[:2] for each in found}
    assert sizes == {"a-deep": (13, 22), "b-clear": (9, 7), "c": (9, 7)}


def test_degraded_pictures_have_no_truth(place, monkeypatch):
    sized(place)
    changes = {"prior": str(place / "any"), "solver": "dps", "name": "x", "pictures": 0, "factor": 2}
    assert run(place, monkeypatch, images="own", degraded=True, **{**changes, "task": "denoise,bicubic"}) == 0
    assert all("truth" not in record for record in results(place))
    page = (place / "runs" / "x" / "index.html").read_text()
    assert "<figcaption>measurement" in page and "<figcaption>truth" not in page
    with pytest.raises(ValueError, match="config.task is motion_blur, which no given picture has suffered"):
        run(place, monkeypatch, images="own", degraded=True, **{**changes, "task": "motion_blur"})
    with pytest.raises(ValueError, match="--degraded needs --images"):
        run(place, monkeypatch, images="", degraded=True, task="denoise")
    with pytest.raises(ValueError, match="config.task is mri, which no given picture has suffered"):
        run(place, monkeypatch, images="own", degraded=True, **{**changes, "task": "mri"})
    with pytest.raises(ValueError, match="of 8 x 8 alone; --degraded needs one of any size"):
        run(place, monkeypatch, degraded=True, task="denoise")


def test_methods_that_ask_for_singular_values_are_refused_where_none_are_known(place, monkeypatch):
    sized(place)
    changes = {"prior": str(place / "any"), "task": "deblur", "name": "x", "blur": {"size": 5}}
    with pytest.raises(ValueError, match="config.task is deblur, whose .* is ddrm, which want them"):
        run(place, monkeypatch, images="own", **changes, solver="dps,ddrm")
    with pytest.raises(ValueError, match="config.base is mcgdiff"):
        run(place, monkeypatch, images="own", **changes, solver="reguidance", base="mcgdiff")
    assert run(place, monkeypatch, images="own", **{**changes, "solver": "dps"}, base="ddrm") == 0
