"""The import command: a stand-in file becomes a prior, is verified, and restores a picture; what it says otherwise."""

import json
import os
import shutil
import sys
from pathlib import Path

import forking
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import diffinv as di
from diffinv import weights
from experiments import import_checkpoint
from experiments.common import commandline

ROOT = Path(__file__).parents[2]
flags.FLAGS.mark_as_parsed()


def start(module, *arguments):
    """The command in a process of its own."""
    tests = os.environ.get("DIFFINV_TEST_CACHE", "") or str(ROOT / ".pytest_cache")
    cache = os.environ.get("DIFFINV_CACHE", "") or os.path.join(tests, "xla")  # the continuous check's holds some
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "DIFFINV_CACHE": cache}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)]
    return forking.run(command, env)


def run(*sources, **options):
    """The command in this process."""
    with flagsaver.flagsaver(**{name: str(v) if isinstance(v, Path) else v for name, v in options.items()}):
        import_checkpoint.main([str(source) for source in sources])


def refused(*sources, **options):
    """Its one line of complaint."""
    with pytest.raises((ValueError, OSError)) as error:
        run(*sources, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(the stand-in, the prior)."""
    folder = tmp_path_factory.mktemp("import")
    source, out = folder / "tiny_ema.pt", folder / "priors"
    run(demo=source)
    run(source, out=out)
    return source, out / "demo32"


@pytest.fixture
def copied(imported, tmp_path):
    """A copy of the prior, and its card to be changed."""
    for suffix in (".json", ".safetensors"):
        shutil.copy(f"{imported[1]}{suffix}", tmp_path / f"x{suffix}")
    card = tmp_path / "x.json"
    return tmp_path / "x", lambda **change: card.write_text(json.dumps({**json.loads(card.read_text()), **change}))


@pytest.mark.slow
def test_an_import_makes_weights_and_a_card(imported):
    source, target = imported
    card = weights.read_card(str(target))
    assert card["source"]["file"] == source.name and card["ema"] == "ema" and card["parameters"] == 828_358
    assert len(card["certificate"]["values"]) == 3 and card["certificate"]["shape"] == [4, 4, 3]
    assert sorted(path.name for path in target.parent.iterdir()) == ["demo32.json", "demo32.safetensors"]


@pytest.mark.slow
def test_verification_finds_the_same(imported, capsys):
    run(imported[1], verify=True)
    assert "828,358 parameters as on the card; reference outputs agree to" in capsys.readouterr().out


@pytest.mark.slow
def test_bad_input_is_one_line_and_leaves_nothing(imported, tmp_path):
    source, target = imported
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert "exists; give another --name" in refused(source, out=target.parent)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before
    half, out = tmp_path / "half.pt", tmp_path / "x"
    half.write_bytes(source.read_bytes()[:5000])
    assert "half.pt is truncated or no torch checkpoint" in refused(half, out=out)
    line = refused(source, out=out, preset="ffhq256")
    assert "channels = 32" in line and "ffhq256 has 128" in line
    assert "the network knows no labels" in refused(source, out=out, label=3)
    assert not out.exists()
    assert "--out=DIR" in refused(source)
    assert "0 sources" in refused(out=out)
    assert f"{source} exists" in refused(demo=source)


def test_a_label_is_chosen_where_there_are_any():
    card = {"architecture": {"classes": 10}}
    with flagsaver.flagsaver(label=3.0):
        assert import_checkpoint.labelled(card)["given"] == {"label": 3}
        assert type(import_checkpoint.labelled(card)["given"]["label"]) is int
    assert import_checkpoint.labelled({**card, "given": {"label": 1}})["given"] == {"label": 1}
    for label in (None, 10, -1, 2.5):
        with flagsaver.flagsaver(label=label), pytest.raises(ValueError, match="10 classes .* give --label=N"):
            import_checkpoint.labelled(card)


def test_a_label_that_is_a_number_keeps_to_its_range():
    card = {"architecture": {"scalar_label": True}, "given": {"label": 0.5}}
    assert import_checkpoint.labelled(card) == card
    with flagsaver.flagsaver(label=0.25):
        assert import_checkpoint.labelled(card)["given"] == {"label": 0.25}
    with flagsaver.flagsaver(label=3.0), pytest.raises(ValueError, match="label is 3.0; give --label=X"):
        import_checkpoint.labelled(card)
    with pytest.raises(ValueError, match="label is None; give --label=X"):
        import_checkpoint.labelled({"architecture": {"scalar_label": True}})


@pytest.mark.slow
def test_verification_notices_another_network_and_another_count(imported, copied):
    path, change = copied
    card = weights.read_card(str(path))
    change(parameters=3)
    assert "828358 parameters, its card says 3" in refused(path, verify=True)
    change(parameters=828_358, architecture={**card["architecture"], "legacy_attention": False})
    assert "deviate by" in refused(path, verify=True)


@pytest.mark.slow
def test_our_own_checkpoints_get_a_certificate_too(copied):
    path, _ = copied
    card = json.loads(Path(f"{path}.json").read_text())
    del card["certificate"]
    Path(f"{path}.json").write_text(json.dumps(card))
    run(path, out=path.parent, name="again")
    assert "certificate" in weights.read_card(str(path.parent / "again"))


@pytest.mark.slow
def test_as_a_user_starts_it(imported, tmp_path):
    done = start(
        "reconstruct", "--config=configs/reconstruct.py:smoke", "--config.solver=dps", "--config.name=x",
        f"--config.prior={imported[1]}", f"--out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "x" / "results.json").read_text())["records"]
    assert all(np.isfinite(record["methods"]["DPS"]["psnr"]) for record in records)
    failed = start("import_checkpoint", tmp_path / "absent.pt", f"--out={tmp_path}", "--preset=ffhq256")
    assert failed.returncode == 1 and failed.stderr.strip().splitlines()[-1].startswith("error: no file")
    assert len(failed.stderr.strip().splitlines()) == 1
    assert "--verify" in start("import_checkpoint", "--help").stdout


@pytest.fixture
def own(tmp_path):
    """A checkpoint of our own whose card says where it would like to be written."""
    card = {
        "architecture": {"name": "unet", **json.loads(json.dumps(nets.TINY))},
        "parametrisation": {"parametrisation": "edm"},
        "process": {"name": "EDM"},
        "shape": [8, 8, 3],
    }
    path = tmp_path / "own"
    weights.save(str(path), nets.tiny()[1], card)
    beside = tmp_path / "own.json"
    return path, lambda **change: beside.write_text(json.dumps({**json.loads(beside.read_text()), **change}))


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a\nb", "..", "c:evil"])
def test_no_name_of_a_file_or_a_flag_is_a_path(own, tmp_path, name):
    path, change = own
    before = sorted(tmp_path.rglob("*"))
    assert "checkpoint.name is" in refused(path, out=tmp_path / "out", name=name)
    change(name=name)
    assert "card.name is" in refused(path, out=tmp_path / "out")
    assert "card.name is" in refused(path, verify=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_has_no_certificate_is_said(own, tmp_path):
    shipped = weights.embedded("ctmsr_x4")
    for options in ({"out": tmp_path / "out"}, {"verify": True}):
        assert "is of an upscaler, and prior is wanted" in refused(shipped, **options)
    path, change = own
    change(process={"name": "Blurring", "shape": [8, 8]}, parametrisation={"parametrisation": "spectral"})
    assert "is a spectral prior, which has no certificate" in refused(path, out=tmp_path / "out")
    change(certificate="certstr")
    assert "card.certificate is 'certstr'" in refused(path, verify=True)


def test_no_file_says_how_much_it_may_deviate():
    """A card whose certificate brings a tolerance of its own, and values that are another network's."""
    kept = weights.certified(np.array([[0.1, 2.0, 0.3], [0.2, 1.0, 0.4]]), (4, 4, 3))
    with pytest.raises(ValueError, match="0.0001 is allowed"):
        weights.verify({"certificate": {**kept, "tolerance": 10.0}}, np.array([[0.1, 2.0, 4.7], [0.2, 1.0, 0.4]]))
    for values in ([[0.1, 0.0, 0.3]] * 2, [[0.1, 2.0]] * 2):
        with pytest.raises(ValueError, match="other values than the network gives"):
            weights.verify({"certificate": {**kept, "values": values}}, np.zeros((2, 3)))


@pytest.mark.parametrize("flag", ["--heads=-1", "--size=0", "--name=../x", "--limit=0", "--preset=ffhq"])
def test_flags_out_of_range_are_one_line(flag, capfd, monkeypatch):
    own = {each.name for each in flags.FLAGS.get_key_flags_for_module("experiments.import_checkpoint")}
    for name in set(flags.FLAGS) - own:  # those of commands that other tests of this process have imported
        monkeypatch.setattr(flags.FLAGS[name], "validators", [])
    with pytest.raises(SystemExit):
        commandline.parse(["import_checkpoint", flag], True)
    said = capfd.readouterr().err.strip()
    flags.FLAGS.unparse_flags()
    flags.FLAGS.mark_as_parsed()
    flags.FLAGS[flag[2:].split("=")[0]].value = None
    flags.FLAGS[flag[2:].split("=")[0]].present = 0
    assert said.startswith("error: " + flag.split("=")[0]) and "\n" not in said


CERTIFIED = {"certificate": weights.certified(np.array([[0.1, 2.0, 0.3], [0.2, 1.0, 0.4]]), (4, 4, 3))}


@pytest.mark.parametrize("shift, fits", [(0.0, True), (1.9e-4, True), (2.1e-4, False), (np.nan, False)])
def test_a_certificate_allows_its_tolerance_and_no_more(shift, fits):
    values = np.array([[0.1, 2.0, 0.3 + shift], [0.2, 1.0, 0.4]])
    if fits:
        assert weights.verify(CERTIFIED, values) == pytest.approx(shift / 2, abs=1e-9)
    else:
        with pytest.raises(ValueError, match="deviate by"):
            weights.verify(CERTIFIED, values)


def test_a_certificate_wants_finite_values_and_a_card_that_has_one():
    with pytest.raises(ValueError, match="not finite"):
        weights.certified(np.array([[np.inf]]), (4, 4, 3))
    with pytest.raises(ValueError, match="no certificate"):
        weights.verify({}, np.zeros((1, 2)))


def test_the_probe_has_unit_variance_and_no_period():
    x = np.asarray(weights.probe((64, 64, 3)))
    assert x.dtype == np.float32 and abs(x.mean()) < 0.03 and abs(x.var() - 1) < 0.03
    spectrum = np.abs(np.fft.rfft(x.ravel())) ** 2
    assert spectrum.max() < 0.02 * spectrum.sum()


def test_the_ratio_of_a_consistency_model_is_measured_and_warned_of(own, capsys, monkeypatch):
    """A map whose ends are its own law has 0; other parametrisations are refused."""
    path, change = own
    with pytest.raises(ValueError, match="predicts 'edm' and samples in many steps"):
        run(path, ratio=4)
    change(parametrisation={"parametrisation": "boundary"})
    forward = di.process.EDM()
    exact = lambda x, t: 0.5 * x / jnp.sqrt(0.25 + forward.sigma(t) ** 2)  # of N(0, I / 4)
    monkeypatch.setattr(weights, "load_prior", lambda path: di.Prior(forward, jax.tree_util.Partial(exact), (8, 8, 3)))
    with pytest.warns(UserWarning, match="no posterior mean"):
        run(path, ratio=64)
    ratios = [float(part.split()[0]) for part in capsys.readouterr().out.splitlines()[1].split(",")]
    assert len(ratios) == len(import_checkpoint.NOISE) and np.all(np.abs(ratios[:4]) < 0.15)
