"""The command as it ships, on a folder of classes and on digits: what it writes, keeps and refuses."""

import hashlib
import json
import shutil
import sys

import forking
import numpy as np
import onnxwrite
import pytest
import training_command
from PIL import Image

from diffinv import data

pytest.importorskip("sklearn", reason="the judges of augmentation come with scikit-learn")
pytest.importorskip("tensorflow_datasets", reason="pictures are prepared by tensorflow-datasets")

QUICK = ["--config=configs/augment_few_shot.py:smoke", "--config.judges=logistic regression"]


def command(*arguments):
    return [sys.executable, "-m", "experiments.augment", *QUICK, *arguments]


def run(*arguments):
    return forking.run(command(*arguments), training_command.environment())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The quick run of digits, with a given network beside the pixels."""
    out = tmp_path_factory.mktemp("augment")
    (out / "inception.onnx").write_bytes(onnxwrite.embedder(2048, (1, 3, 12, 12)))
    done = run(f"--out={out}", f"--config.inception={out / 'inception.onnx'}")
    assert done.returncode == 0, done.stderr
    return out / "augment_few_shot", done


def records(folder):
    return {path.stem: json.loads(path.read_bytes())["record"] for path in (folder / "seeds").glob("*.json")}


@pytest.mark.slow
def test_the_page_has_a_verdict_for_each_recipe_and_every_table(finished):
    folder, done = finished
    page = (folder / "index.html").read_text()
    for told in ("Verdict", "Every strength that was tried", "Cost", "Taken by filters", "RandAugment", "pixels"):
        assert told in page, told
    assert page.count("data:image/png") >= 2 and "http" not in page
    for method in ("SDEdit", "Diff-Mix"):
        assert f"logistic regression: {method}" in page and f"logistic regression: {method}" in done.stdout
    assert len(records(folder)) == 2
    (first, second) = records(folder).values()
    assert all(np.isfinite(each["Inception-KID"]) for each in first["quality"].values())
    held = json.loads((folder / "seeds" / "0.json").read_bytes())["settings"]["networks"]["inception"]["sha256"]
    assert held == hashlib.sha256((folder.parent / "inception.onnx").read_bytes()).hexdigest()
    assert "Inception-FID" in page and held[:16] in page
    assert first["rare"] != second["rare"] or first["arms"] != second["arms"]


@pytest.mark.slow
def test_the_augmented_folder_is_read_back(finished, tmp_path):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "augmented" / "provenance.jsonl").read_text().splitlines()]
    files = {path.relative_to(folder / "augmented").as_posix() for path in (folder / "augmented").rglob("*.png")}
    assert {line["file"] for line in lines} == files
    made = [line for line in lines if line["made"]]
    assert len(made) == 18 and all(line["file"].startswith(f"train/{line['class']}/made-") for line in made)
    trained = {line["id"] for line in lines if not line["made"] and line["file"].startswith("train/")}
    assert {source for line in made for source in line["from"]} <= trained
    called = {line["id"]: line["name"] for line in lines if not line["made"]}
    assert all(line["from_names"] == [called[source] for source in line["from"]] for line in made)
    seen = data.source(str(folder / "augmented"), 8, "train", str(tmp_path), 1)
    assert len(seen) == sum(line["file"].startswith("train/") for line in lines) and len(seen.classes) == 10


@pytest.mark.slow
def test_tfds_reads_the_augmented_folder(finished):
    pytest.importorskip("tensorflow", reason="the image folder of tensorflow-datasets is read by tensorflow")
    import tensorflow_datasets as tfds

    builder = tfds.folder_dataset.ImageFolder(str(finished[0] / "augmented"))
    files = list((finished[0] / "augmented" / "train").rglob("*.png"))
    assert builder.info.splits["train"].num_examples == len(files)
    assert builder.info.features["label"].num_classes == 10


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped_and_refuses_another_configuration(finished, tmp_path):
    folder, done = finished
    shutil.copytree(folder, tmp_path / "augment_few_shot")
    again = tmp_path / "augment_few_shot"
    known = records(folder)
    (again / "seeds" / "1.json").write_text("{")  # as a kill would not leave it, but a full disk might
    network = f"--config.inception={folder.parent / 'inception.onnx'}"
    more = run(f"--out={tmp_path}", "--config.seeds=3", network)
    assert more.returncode == 0, more.stderr
    found = records(again)
    without = lambda record: {name: value for name, value in record.items() if name != "seconds"}
    assert {name: without(found[name]) for name in known} == {name: without(each) for name, each in known.items()}
    assert set(found) == {"0", "1", "2"} and found["0"]["seconds"] == known["0"]["seconds"]
    other = run(f"--out={tmp_path}", "--config.shots=4", network)
    errors = [line for line in other.stderr.splitlines() if line.startswith("error: ")]
    assert other.returncode == 1 and len(errors) == 1 and "config.shots = 5, not 4" in errors[0]


@pytest.fixture
def pictures(tmp_path):
    """A newcomer's folder: two classes of many pictures and one of few, grey ramps with noise."""
    rng = np.random.default_rng(0)
    for name, count in (("left", 24), ("right", 24), ("a/b c", 8)):
        folder = tmp_path / "pictures" / name.replace("/", "-")
        folder.mkdir(parents=True)
        for i in range(count):
            ramp = {"left": np.arange(12), "right": np.arange(12)[::-1]}.get(name, np.full(12, 6))
            pixels = np.clip(20 * ramp[None] + rng.normal(0, 20, (12, 12)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_a_newcomers_folder_becomes_an_augmented_folder_and_a_report(pictures, tmp_path):
    own = [f"--config.data={pictures}", "--config.names=a-b c", "--config.shots=0", "--config.count=0"]
    done = run(*own, f"--out={tmp_path / 'out'}", "--config.size=12", "--config.seeds=1")
    assert done.returncode == 0, done.stderr
    made = list((tmp_path / "out" / "augment_few_shot" / "augmented" / "train" / "a-b c").glob("made-*.png"))
    real = list((tmp_path / "out" / "augment_few_shot" / "augmented" / "train" / "left").glob("real-*.png"))
    assert made and abs(len(made) - len(real)) <= 12
    assert "of one seed, which say nothing" in done.stdout
    lines = (tmp_path / "out" / "augment_few_shot" / "augmented" / "provenance.jsonl").read_text().splitlines()
    named = {json.loads(line)["name"] for line in lines if not json.loads(line)["made"]}
    assert named == {str(path) for path in pictures.rglob("*.png")}


@pytest.mark.slow
def test_without_seeds_all_pictures_are_for_training(pictures, tmp_path):
    own = [f"--config.data={pictures}", "--config.names=a-b c", "--config.shots=0", "--config.seeds=0"]
    done = run(*own, f"--out={tmp_path / 'out'}", "--config.size=12")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "augment_few_shot"
    lines = [json.loads(line) for line in (folder / "augmented" / "provenance.jsonl").read_text().splitlines()]
    real = [line for line in lines if not line["made"]]
    assert len(real) == 56 and not any(line["file"].startswith("test/") for line in real)
    text = (folder / "index.html").read_text()
    assert "Verdict" not in text and "Nothing was judged" in text


def test_bad_input_is_one_line(pictures, tmp_path):
    single = tmp_path / "single"
    shutil.copytree(pictures, single / "of" / "one")
    thin = tmp_path / "thin"
    shutil.copytree(pictures, thin)
    for path in sorted((thin / "left").glob("*.png"))[1:]:
        path.unlink()
    cases = {
        "config.names has 'elephant'; the classes are": [f"--config.data={pictures}", "--config.names=elephant"],
        "'left' has 1": [f"--config.data={thin}", "--config.size=12"],
        "give a folder with one folder a class": [f"--config.data={single / 'of'}", "--config.size=12"],
        "shots is 40": [f"--config.data={pictures}", "--config.names=a-b c", "--config.shots=40", "--config.size=12"],
        "config.model knows no class of": [
            f"--config.data={pictures}",
            "--config.model=satellite64",
            "--config.size=64",
            "--config.channels=3",
        ],
        "config.model is of pictures (64, 64, 3)": ["--config.model=satellite64"],
        "config.confidence is (0.9, 0.1); give the smaller one first": ["--config.confidence=(0.9,0.1)"],
        "config.methods is 'magic'": ["--config.methods=magic"],
        "the classifier's confidence took 18": ["--config.confidence=(1.0,1.0)", "--config.seeds=1"],
        "matches no file": ["--config.data=nowhere/at/all"],
    }
    commands = [command(*case, f"--out={tmp_path / str(i)}") for i, case in enumerate(cases.values())]
    done = forking.together(commands, training_command.environment())
    for line, each in zip(cases, done):
        assert each.returncode == 1, (line, each.stdout, each.stderr)
        errors = [said for said in each.stderr.splitlines() if "error: " in said]
        assert len(errors) == 1 and line in errors[0], (line, each.stderr[-600:])
