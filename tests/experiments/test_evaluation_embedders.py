"""Columns of given networks: the metrics of their features by hand, kept, told with digests; others are refused."""

import csv
import hashlib
import json

import forking
import jax
import nets
import numpy as np
import onnxwrite
import pytest
import training_command
from PIL import Image
from test_evaluate import CARD, NETWORK, command

from configs.tables import reguidance
from diffinv import data, weights
from diffinv.metrics import distribution, embeddings
from diffinv.nn import convnet
from experiments.evaluation import embedders, items, printed, realism, shards
from experiments.evaluation.fields import check

SHAPE = (8, 8, 3)
ASKED = ("--config.reference=4", "--config.draws=1", "--config.pictures=4")
NAMES = {"inception": "inception_v3", "clip": "clip_vit_l14_336", "dino": "dinov2_vit_l14"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny prior, eight pictures, and networks of the widths that the names stand for."""
    folder = tmp_path_factory.mktemp("embedders")
    weights.save(str(folder / "prior"), nets.drawn(convnet.ConvUNet(**NETWORK)), CARD)
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, SHAPE, np.uint8)).save(folder / "in" / f"p{i}.png")
    (folder / "inception.onnx").write_bytes(onnxwrite.embedder(2048, (1, 3, 12, 12)))
    (folder / "clip.onnx").write_bytes(onnxwrite.embedder(768, (1, 3, 10, 10), 1, "image_embeds"))
    (folder / "dino.onnx").write_bytes(onnxwrite.embedder(1024, (1, 9, 9, 3), 2))
    return folder


def files(place):
    return [f"--config.{name}={place / name}.onnx" for name in NAMES]


def run(place, *more, solvers="zero_filled"):
    asked = command(place, place / "out", *ASKED, *more, solvers=solvers)
    return forking.run(asked, training_command.environment(DIFFINV_DEVICES="1"))


@pytest.fixture(scope="module")
def done(place):
    first = run(place, *files(place))
    assert first.returncode == 0, first.stderr
    return first


def table(place):
    return json.loads((place / "out" / "t" / "ledger.json").read_text())


def by_hand(place):
    """The columns of the kept pictures, from 8 bits through each network and each metric."""
    held, others = (items.pictures(str(place / "in"), SHAPE, first, 4, 0)[1] for first in (0, 4))
    (folder,) = (place / "out" / "t" / "cells").glob("*/*")
    found = shards.read(folder)[0]
    kept = np.stack([shards.unit(found[item].x) for item in held.items(1)])
    eight = lambda x: np.round((np.asarray(x, np.float64) + 1) * 127.5) / 127.5 - 1
    restored, real = eight(kept), eight(data.to_unit(others.pixels))
    one = lambda name, x: np.stack([embeddings.known_network(NAMES[name], place / f"{name}.onnx")(y) for y in x])
    with jax.numpy_dtype_promotion("standard"):
        rows = {name: [one(name, x.astype(np.float32)) for x in (restored, real)] for name in NAMES}
    kid = distribution.feature_kid(*rows["inception"])
    return {
        "inception_fid": distribution.feature_fid(*rows["inception"]),
        "inception_kid": [kid.value, kid.half],
        "clip_cmmd": distribution.feature_cmmd(*rows["clip"]),
        "dino_fd": distribution.feature_fid(*rows["dino"]),
    }


def test_columns_are_the_metrics_of_the_networks_features(place, done):
    expected = by_hand(place)
    row = table(place)["cells"][0]["row"]
    assert "inception_fid_limit" not in row, "of four pictures nothing is extrapolated"
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name
    assert expected["inception_fid"] > 1 and expected["clip_cmmd"] > 0.01


def test_they_stand_in_every_form_of_the_table_with_the_files_digest(place, done):
    folder, content = place / "out" / "t", table(place)
    page = (folder / "table.md").read_text()
    for head in ("Inception-FID ↓", "Inception-KID ↓", "CLIP-CMMD ↓", "FD-DINOv2 ↓"):
        assert head in page and head.replace("↓", "") in (folder / "table.tex").read_text()
    (row,) = csv.DictReader((folder / "table.csv").read_text().splitlines())
    assert float(row["inception_fid"]) == content["cells"][0]["row"]["inception_fid"]
    assert float(row["inception_kid_half"]) == content["cells"][0]["row"]["inception_kid"][1]
    digest = hashlib.sha256((place / "clip.onnx").read_bytes()).hexdigest()
    told = content["networks"]["clip"]
    assert told["sha256"] == digest and told["network"] == "clip_vit_l14_336" and told["size"] == [10, 10]
    assert told["mean"] == list(embeddings.PREPARATIONS["clip_vit_l14_336"].mean)
    assert f"CLIP-CMMD: of clip.onnx (sha256 {digest[:16]}), 10 x 10, bicubic, 8 bits, against 4." in page
    assert "only equal numbers of both sets compare" in page
    assert content["truth"][0]["inception_fid"] > 0, "of other pictures of the same law, too"


def test_a_second_run_reads_the_kept_features(place, done, monkeypatch):
    """In this process, where nothing may be looked at again; and another preparation, which is another judge, is."""
    folder = place / "out" / "t" / "features"
    assert len(list(folder.glob("inception-*.npy"))) == 3, "reference, cell and truth"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run(place, *files(place))
    assert again.returncode == 0 and {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    config = reguidance.get_config("smoke")
    config.update(inception=str(place / "inception.onnx"))
    kept = np.asarray(data.to_unit(items.pictures(str(place / "in"), SHAPE, 4, 4, 0)[1].pixels))
    monkeypatch.setattr(realism.Eye, "__call__", lambda *_: pytest.fail("it was kept"))
    (given,) = embedders.embedders(config)
    assert given.rows(kept, folder).shape == (4, 2048)
    config.inception_takes = "mean=0 deviation=1"
    with pytest.raises(BaseException, match="it was kept"):
        embedders.embedders(config)[0].rows(kept, folder)


def test_many_pictures_have_an_estimate_without_the_bias(place):
    config = reguidance.get_config("smoke")
    config.update(inception=str(place / "inception.onnx"), clip=str(place / "clip.onnx"))
    inception, clip = embedders.embedders(config)
    a, b = (np.random.default_rng(seed).standard_normal((20, 7)) for seed in (0, 1))
    found = inception.columns(a, b)
    assert found["inception_fid_limit"] == tuple(distribution.feature_fid_estimate(a, b, 10))
    assert found["inception_fid_limit"][0] < found["inception_fid"]
    assert "inception_fid_limit" not in inception.columns(a[:19], b) and clip.columns(a[:2], b) == {}


def test_a_papers_fid_stands_beside_that_of_inception():
    rows = printed.rows("dps_ffhq", [{"task": "box", "method": "DPS", "inception_fid": 30.5}])
    assert {row["here"] for row in rows if row["task"] == "box" and row["metric"] == "FID"} == {30.5}


def test_a_file_of_another_network_is_refused_with_what_was_found(place):
    torchvision = place / "classes.onnx"
    torchvision.write_bytes(onnxwrite.embedder(1000))
    line = training_command.error(*_said(run(place, f"--config.inception={torchvision}")))
    assert "config.inception: " in line and "gives both (1, 6), row (1, 1000)" in line and "2048 features" in line
    missing = training_command.error(*_said(run(place, f"--config.clip={place / 'none.onnx'}")))
    assert "config.clip: " in missing and "none.onnx is no file" in missing
    assert "openai/clip-vit-large-patch14-336" in missing and "docs/evaluating.md" in missing


def _said(done):
    return done.stderr, done.returncode


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip": "net.onnx"}, "config.clip compares sets of pictures, and config.reference is 0"),
        ({"clip_takes": "size=10", "reference": 4}, "config.clip_takes is of a file, and config.clip is ''"),
        ({"clip": "n", "clip_takes": "sizes=10"}, "config.clip_takes has 'sizes=10'; .*did you mean 'size'"),
        ({"clip": "n", "clip_takes": "mean=0,1"}, "config.reference is 0"),
        ({"clip": "n", "clip_takes": "deviation=0"}, r"config.clip_takes: deviation is \[0.0\]"),
        ({"clip": "n", "clip_takes": "method=area"}, "config.clip_takes: method is 'area'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(changes, words):
    config = reguidance.get_config("smoke")
    config.update({"reference": 0, **changes})
    with pytest.raises(ValueError, match=words):
        check(config)


def test_a_text_says_what_a_file_wants_otherwise():
    assert embedders.taken("size=96 mean=0.5,0.4,0.3 antialias=true output=pool channels=last", "t") == {
        "size": 96, "mean": (0.5, 0.4, 0.3), "antialias": True, "output": "pool", "channels": "last"
    }  # fmt: skip
    assert embedders.taken("", "t") == {} and embedders.taken("deviation=1", "t") == {"deviation": (1.0,)}


def test_pictures_are_rounded_to_8_bits():
    x = np.asarray([-1.2, -1, 0.001, 0.5, 1, 1.3], np.float32)
    levels = (embedders.rounded(x).astype(float) + 1) * 127.5
    np.testing.assert_allclose(levels, [0, 0, 128, 191, 255, 255], atol=1e-4)
