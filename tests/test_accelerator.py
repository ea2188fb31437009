"""`benchmarks.accelerator`: what is packed, what a run leaves behind, and that a section's failure is its own."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from forking import ROOT
from PIL import Image
from training_command import environment

from benchmarks import accelerator, accelerator_sections, carrying, timed_training
from diffinv import data, weights
from diffinv.data.builders import Resident, Source


def folder(path, classes=("field", "sea"), count=20, size=12):
    """PNG pictures, one folder a class."""
    generator = np.random.default_rng(0)
    for name in classes:
        (path / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (size, size + i % 3, 3), np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i:02d}.png")
    return str(path)


def listed(path):
    return list(data.catalogue(path).records())


def test_a_pack_holds_files_as_they_are_evenly_from_every_class(tmp_path):
    given = folder(tmp_path / "given")
    counts = carrying.pack(given, tmp_path / "some.npz", 10, 2, {"name": "mine", "licence": "CC0"})
    assert counts == {"training": 10, "held_out": 2}
    found = listed(str(tmp_path / "some.npz"))
    assert data.catalogue(str(tmp_path / "some.npz")).classes == ("field", "sea")
    assert [(record.label, record.split) for record in found] == [(0, 0)] * 5 + [(1, 0)] * 5 + [(0, 1), (1, 1)]
    originals = {path.read_bytes() for path in Path(given).rglob("*.png")}
    assert {record.source for record in found} <= originals and len({record.source for record in found}) == 12


def test_a_pack_of_all_keeps_the_split_of_the_source(tmp_path):
    """Also of a pack, whose guard stays out, and of arrays, which become PNG."""
    given = folder(tmp_path / "given")
    carrying.pack(given, tmp_path / "all.npz", 0, 0)
    held_out = [data.files.held_out(record, number) for number, record in enumerate(listed(given))]
    assert [record.split for record in listed(str(tmp_path / "all.npz"))] == sorted(map(int, held_out))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "arrays.npz", train_images=images[:4], test_images=images[4:])
    assert carrying.pack(str(tmp_path / "arrays.npz"), tmp_path / "png.npz", 0, 0) == {"training": 4, "held_out": 2}
    again = data.patches(str(tmp_path / "png.npz"), 8, 8, "validation")
    np.testing.assert_array_equal(again.take(range(2))["image"], images[4:])


def test_what_is_too_much_is_refused_with_the_numbers(tmp_path, capsys):
    given = folder(tmp_path / "given")
    asked = ["--pack", str(tmp_path / "out"), "--photos", given, "--photographs", "8"]
    assert accelerator.main([*asked, "--limit", "1"]) == 2
    printed = capsys.readouterr()
    assert "more than --limit=1" in printed.err and "MiB  the repository's files" in printed.out
    assert not list((tmp_path / "out").iterdir())
    assert accelerator.main([*asked, "--limit", "1000", "--there", "jax,jaxlib,numpy,scipy,flax,optax"]) == 0
    printed = capsys.readouterr().out
    assert "photo.npz: 8 pictures for training" in printed and "ml-collections==" in printed
    assert "--python-version 3.12" in printed and not {" flax==", " jax==", " numpy=="} & set(printed.split("-d ")[1])


def test_the_packages_are_those_that_are_imported():
    """What flax needs comes with it; what is there, and what only that needs, does not."""
    names = lambda there: {name for name, _ in carrying.packages(there, ["flax", "ml-collections"])}
    assert {"flax", "msgpack", "ml-collections", "absl-py", "jax", "jaxlib"} <= names([])
    assert names(["flax", "absl_py", "PyYAML"]) == {"ml-collections"}
    assert carrying.packages(["jax", "jaxlib", "flax"], ["jax", "flax"]) == []


@pytest.mark.parametrize(
    "device, peak", [("NVIDIA H200", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("cpu", None)]
)
def test_the_peak_is_that_of_the_device(device, peak):
    assert accelerator_sections.peak(device) == peak


def test_operations_are_counted_also_where_the_compiled_program_does_not(key):
    """Of a product of 8 x 16 by 16 x 4: 2 x 8 x 16 x 4."""
    lowered = jax.jit(lambda a, b: a @ b).lower(np.ones((8, 16), np.float32), np.ones((16, 4), np.float32))

    class Silent:
        def cost_analysis(self):
            return [{}]

    assert accelerator_sections.counted(lowered, Silent()) == 1024
    assert accelerator_sections.counted(lowered, lowered.compile()) >= 1024


def test_batches_are_whole_epochs_drawn_on_the_device(key):
    """Every picture once an epoch, in another order, and the labels stay with their pictures."""

    class Run:
        whole = rows = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    run = Run()
    run.key, run.config = key, type("Config", (), {"batch": 4})
    images = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    batch = timed_training.feed(run, Source(Resident(images, 10 * np.arange(8, dtype=np.int32)), 2))
    drawn = [jax.device_get(batch(n)) for n in range(4)]
    epochs = [np.concatenate([each["label"] for each in drawn[i : i + 2]]) for i in (0, 2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(0, 80, 10)) and list(epochs[0]) != list(epochs[1])
    for each in drawn:
        np.testing.assert_array_equal(10 * each["image"][:, 0, 0, 0].astype(int), each["label"])
    np.testing.assert_array_equal(drawn[3]["label"], batch(3)["label"])


SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize("status, state", [(0, "done"), (3, "failed"), (None, "cut")])
def test_the_outcome_is_told_by_the_status(status, state, tmp_path):
    found = accelerator.outcome(status, {"ms": 2.0}, 9.0, tmp_path / "x.log")
    assert (found.state, found.found) == (state, {"ms": 2.0}) and bool(found.why) == (state != "done")
    assert accelerator.outcome(0, {"skipped": "no torch"}, 1.0, tmp_path / "x.log")[:2] == ("skipped", "no torch")
    assert accelerator.outcome(1, {"failed": "E: x"}, 1.0, tmp_path / "x.log").why == "E: x"


def test_a_section_is_stopped_with_what_it_started():
    with subprocess.Popen(SLEEPS, start_new_session=True) as process:
        accelerator.stop(process)
        assert process.returncode == -15


def test_unknown_sections_are_refused(tmp_path, capsys):
    assert accelerator.main([f"--out={tmp_path}", "--only=tests,mfus"]) == 2
    assert "--only names mfus; known are tests,sampling" in capsys.readouterr().err


def test_weights_of_an_earlier_run_are_not_trained_over(tmp_path, capsys):
    """It is said before three minutes of training are in vain."""
    (tmp_path / "photo.safetensors").write_bytes(b"")
    assert accelerator.main([f"--out={tmp_path}", "--rehearse"]) == 2
    assert "which holds the weights photo already; give another" in capsys.readouterr().err


def test_without_an_accelerator_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.common.runtime.start", lambda: None)
    report = accelerator_sections.Report(tmp_path / "x.json")
    with pytest.raises(ValueError, match="JAX finds no accelerator here"):
        accelerator_sections.begin(report, {"rehearse": False})


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """(exit status, what was found, the folder) of a rehearsal whose carried photographs are damaged."""
    out, carried = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("carried")
    carrying.pack(folder(carried / "given"), carried / "satellite64.npz", 0, 0, {"name": "mine", "licence": "CC0"})
    (carried / "photo.npz").write_bytes(b"damaged")
    command = [sys.executable, "-m", "benchmarks.accelerator", "--rehearse", f"--out={out}"]
    command += [f"--carried={carried}", "--seconds=1400"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=1500)
    return done, json.loads((out / "accelerator.json").read_text()), out


NUMBERS = {
    "tests": ["passed"],
    "sampling": ["ddim_over_network", "dps_over_gradients"],
    "satellite64": ["pictures_per_s", "held_out_after", "images_seen_in_all"],
    "mfu": ["network_ms_a_picture", "network_tflop_a_picture", "gradient_ms_a_picture"],
    "nccl": ["gb_per_s"],
}


@pytest.mark.slow
@pytest.mark.long
def test_a_rehearsal_finds_every_number_and_a_failing_section_stops_no_other(rehearsal):
    done, found, out = rehearsal
    assert done.returncode == 1, done.stderr
    assert list(found) == [section.name for section in accelerator.SECTIONS]
    assert found["photo"]["state"] == "failed" and "photo.npz" in found["photo"]["why"], found["photo"]
    others = {name: each["state"] for name, each in found.items() if name not in ("photo", "torch")}
    assert set(others.values()) == {"done"}, found
    assert found["torch"]["state"] in ("done", "skipped")
    for name, numbers in NUMBERS.items():
        assert all(found[name]["found"][number] > 0 for number in numbers), found[name]
    assert found["tests"]["found"]["passed"] >= 8 and found["nccl"]["found"]["sum_is_right"] is True
    page = (out / "accelerator.md").read_text()
    assert all(f"| {name} |" in page for name in found) and "### mfu" in page


@pytest.mark.slow
def test_a_rehearsed_training_leaves_weights_that_load_and_say_how_they_came(rehearsal):
    _, found, out = rehearsal
    prior, card = weights.load_prior(str(out / "satellite64")), weights.read_card(str(out / "satellite64"))
    assert prior.shape == (8, 8, 3) and card["trained_in"] == "bfloat16"
    assert card["architecture"]["dtype"] == "float32" and card["stored"].startswith("float16")
    assert card["images_seen"] == card["images_seen_in_all"] == found["satellite64"]["found"]["images_seen"] > 0
    assert (card["data_licence"], card["labels"]) == ("CC0", ["field", "sea"])
    with Image.open(out / "satellite64.png") as samples:
        assert samples.size == (16, 16)
