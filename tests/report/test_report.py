"""Reports: what is on the page, what is on the disk, and what survives a full disk."""

import base64
import errno
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import report
from experiments.report import gallery, tables
from experiments.report.page import link, shown


def _image(seed, shape=(8, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _record(picture="cat", task="box", methods=("dps", "ddrm"), bad=-1, shape=(8, 8, 3)):
    def case(i):
        numbers = {"psnr": 20.0 + i, "ssim": 0.5, "feature_distance": 0.3 - 0.1 * i, "residual": 3.0 - i, "floor": 2.0}
        spent = {"nfe": 100, "seconds": 1.5, "first_bad_step": bad if i == 0 else -1}
        return {"image": _image(10 + i, shape), **numbers, **spent}

    cases = {name: case(i) for i, name in enumerate(methods)}
    return {
        "picture": picture,
        "task": task,
        "truth": _image(1, shape),
        "measurement": _image(2, (4, 4, 3)),
        "methods": cases,
    }


class _Page(HTMLParser):
    """Collects tags, sources and text, and checks that tags are balanced."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(path.read_text("utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def images(self):
        sources = [attrs["src"] for tag, attrs in self.tags if tag == "img"]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(s.partition(",")[2])))) for s in sources]

    def marked(self, name):
        """The texts of the cells and numbers of a class."""
        return [tag for tag, attrs in self.tags if name in attrs.get("class", "").split()]


@pytest.fixture
def written(tmp_path):
    records = [_record(), _record("dog", bad=37)]
    return records, report.write(tmp_path, "A <title>", "python x.py", records, notes=["Not LPIPS."], config={"a": 1})


def test_the_page_asks_for_nothing_from_outside(written):
    _, paths = written
    page = _Page(paths.index)
    links = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href", "action", "data")]
    assert links and all(link.startswith("data:") for link in links)
    assert not re.search(r"url\(|@import|https?:|<script", paths.index.read_text("utf-8"))


def test_the_page_shows_every_picture_side_by_side_and_exactly(written):
    records, paths = written
    expected = [
        image
        for r in records
        for image in (r["truth"], r["measurement"], *(case["image"] for case in r["methods"].values()))
    ]
    shown = _Page(paths.index).images()
    assert len(shown) == len(expected) == 8
    for ours, image in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(ours, image)


def test_the_page_says_what_it_should(written):
    text = " ".join(_Page(written[1].index).text)
    for words in ("A <title>", "python x.py", "Not LPIPS.", "cat", "dog", "20.00", "0.3000", "3.000 / 2.000", "jax"):
        assert words in text, words
    assert text.count("frozen: not finite from step 37") == 1


def test_text_is_escaped(tmp_path):
    record = _record("<b>&", "<script>x</script>", ("<i>m", 'a"b'))
    page = _Page(report.write(tmp_path, "<t>", "<c>", [record], notes="<n>", config={"k": "<v>"}).index)
    assert not {"b", "i", "t", "c", "n", "v", "script"} & {tag for tag, _ in page.tags}
    assert "<script>x</script>" in " ".join(page.text)


def test_results_hold_everything_and_lead_to_the_pictures(written, tmp_path):
    records, paths = written
    results = json.loads(paths.results.read_text("utf-8"))
    assert (results["title"], results["command"], results["config"]) == ("A <title>", "python x.py", {"a": 1})
    assert results["versions"]["jax"] and results["means"] == report.summarise(records)
    entry = results["records"][1]
    assert (entry["picture"], entry["methods"]["dps"]["first_bad_step"]) == ("dog", 37)
    stored = np.asarray(Image.open(tmp_path / entry["methods"]["ddrm"]["image"]))
    np.testing.assert_array_equal(stored, records[1]["methods"]["ddrm"]["image"])
    assert not Path(entry["truth"]).is_absolute()


def test_append_then_load_gives_the_records_back(tmp_path):
    record, grey = _record(), _record("grey", shape=(8, 6, 1))
    record["methods"]["dps"] |= {
        "psnr": float("inf"),
        "ssim": np.float32(0.25),
        "seconds": jnp.float32(2),
        "residual": np.nan,
    }
    report.append(tmp_path, record, "t", "c")
    report.append(tmp_path, grey)
    first, second = report.load(tmp_path)
    case = first["methods"]["dps"]
    assert (case["psnr"], case["ssim"], case["seconds"]) == (float("inf"), 0.25, 2.0) and np.isnan(case["residual"])
    np.testing.assert_array_equal(case["image"], record["methods"]["dps"]["image"])
    np.testing.assert_array_equal(second["truth"], grey["truth"])
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


def test_append_replaces_its_own_and_keeps_the_others(tmp_path):
    for picture, psnr in [("cat", 1.0), ("dog", 2.0), ("cat", 3.0)]:
        record = _record(picture)
        record["methods"]["dps"]["psnr"] = psnr
        report.append(tmp_path, record)
    assert {r["picture"]: r["methods"]["dps"]["psnr"] for r in report.load(tmp_path)} == {"cat": 3.0, "dog": 2.0}


def test_write_lists_only_its_own_records(tmp_path):
    report.append(tmp_path, _record("old"))
    report.write(tmp_path, "t", "c", [_record("new")])
    assert [r["picture"] for r in report.load(tmp_path)] == ["new"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_keeps_what_is_finished(number, where, tmp_path, monkeypatch):
    report.append(tmp_path, _record("first"))
    before = (tmp_path / "results.json").read_bytes()
    calls, real = [], getattr(os, where)

    def full(*args):
        calls.append(args)
        if len(calls) > 4:
            raise OSError(number, os.strerror(number))
        return real(*args)

    monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="no space left for .*are kept") as error:
        report.append(tmp_path, _record("second"))
    assert error.value.errno == number and "\n" not in str(error.value)
    assert (tmp_path / "results.json").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))
    assert [r["picture"] for r in report.load(tmp_path)] == ["first"]


def test_other_errors_of_the_disk_are_not_renamed(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        report.append(tmp_path / "file", _record())


def test_names_stay_apart_and_inside_the_folder(tmp_path):
    for picture in ("a b", "a/b", "a-b", "../../x", "..", ""):
        report.append(tmp_path / "in", _record(picture, methods=("dps.x", "dps/../x")))
    assert len(list((tmp_path / "in").rglob("0-truth.png"))) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert all(len(r["methods"]) == 2 for r in report.load(tmp_path / "in"))


def test_the_gallery_enlarges_without_blending(tmp_path):
    record = _record(methods=("dps",), shape=(32, 32, 3))
    sheet = np.asarray(Image.open(report.write(tmp_path, "t", "c", [record]).gallery))
    truth = np.kron(record["truth"], np.ones((4, 4, 1), np.uint8))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (128, 128), (0, 1))
    corner = np.argwhere((windows[..., 0, 0] == truth[0, 0]).all(-1))
    assert any((sheet[i : i + 128, j : j + 128] == truth).all() for i, j in corner)


def test_the_gallery_labels_columns_rows_and_frozen_ones():
    plain, frozen = (gallery.draw([_record("cat", bad=bad)]) for bad in (-1, 5))
    red = lambda sheet: (np.asarray(sheet) == gallery.RED).all(-1).any()
    assert red(frozen) and not red(plain)
    wider = gallery.draw([_record("cat", methods=("dps", "a method of a rather long name, wider than its pictures"))])
    assert wider.width > plain.width
    assert gallery.draw([_record("a picture of a rather long name")]).width > plain.width
    assert gallery.draw([_record()] * 3).height > plain.height


def test_a_method_that_one_picture_lacks_leaves_a_gap(tmp_path):
    records = [_record(), _record("dog", methods=("daps",))]
    report.write(tmp_path, "t", "c", records)
    assert len(_Page(tmp_path / "index.html").images()) == 7


def test_only_the_first_are_shown_and_all_are_kept(tmp_path):
    paths = report.write(tmp_path, "t", "c", [_record(str(i)) for i in range(3)], shown=2)
    page = _Page(paths.index)
    assert len(page.images()) == 8 and "The first 2 of 3 pictures" in " ".join(page.text)
    assert len(report.load(tmp_path)) == 3


def test_means_by_hand():
    rows = report.summarise([_record(), _record("dog", bad=3), _record("cat", "blur")])
    assert [(r["task"], r["method"], r["pictures"], r["frozen"]) for r in rows] == [
        ("box", "dps", 2, 1), ("box", "ddrm", 2, 0), ("blur", "dps", 1, 0), ("blur", "ddrm", 1, 0)]  # fmt: skip
    assert rows[0]["psnr"] == 20 and rows[1]["feature_distance"] == pytest.approx(0.2)
    assert rows[0]["ratio"] == 1.5 and rows[1]["ratio"] == 1.0


def test_a_failure_is_in_no_mean_and_the_count_is_told():
    """Frozen, not finite and far away; of the fourth picture alone is the mean."""
    cases = [
        {"first_bad_step": 3, "psnr": 99.0},
        {"psnr": float("nan")},
        {"psnr": 50.0, "largest": 9.0},
        {"psnr": 20.0},
    ]
    records = [_record(str(i), methods=("dps",)) for i in range(4)]
    for record, case in zip(records, cases, strict=True):
        record["methods"]["dps"] |= case
    row = report.summarise(records)[0]
    assert (row["psnr"], row["averaged"], row["pictures"], row["frozen"], row["diverged"]) == (20.0, 1, 4, 2, 1)
    assert "in the means" in report.table([row])
    nothing = report.summarise(records[:2])[0]
    assert np.isnan(nothing["psnr"]) and nothing["averaged"] == 0
    assert "averaged" not in report.summarise(records[3:])[0]


def test_best_is_by_column_and_task_and_as_printed():
    rows = [
        {"task": "a", "psnr": 20.001, "seconds": 2.0, "ratio": 0.5, "nfe": 7},
        {"task": "a", "psnr": 20.002, "seconds": 1.0, "ratio": 1.2, "nfe": 7},
        {"task": "a", "psnr": 19.0, "seconds": float("nan"), "ratio": 9.0, "nfe": 7},
        {"task": "b", "psnr": 10.0, "seconds": (3.0, 0.1), "ratio": 1.0, "nfe": None},
        {"task": "b", "psnr": 9.0, "seconds": (2.0, 0.1), "ratio": "n/a", "nfe": 7},
    ]
    assert tables.best(rows, "psnr") == {0, 1, 3}
    assert tables.best(rows, "seconds") == {1, 4}
    assert tables.best(rows, "ratio") == {1}
    assert tables.best(rows, "nfe") == set()


def test_table_is_markdown():
    rows = [{"method": "dps|x", "psnr": 20.0, "seconds": (1.0, 0.25)}, {"method": "ddrm", "psnr": 21.0}]
    assert report.table(rows, ["method", "psnr", "seconds"]).splitlines() == [
        "| method | PSNR / dB ↑ |   seconds ↓ |",
        "| ------ | ----------: | ----------: |",
        "| dps\\|x |       20.00 | 1.00 ± 0.25 |",
        "| ddrm   |   **21.00** |             |",
    ]


def test_a_trace_in_a_method_is_kept_and_not_printed(tmp_path):
    record = _record()
    record["methods"]["dps"]["trace"] = np.arange(4.0)
    report.write(tmp_path, "t", "c", [record])
    assert report.load(tmp_path)[0]["methods"]["dps"]["trace"] == [0, 1, 2, 3]
    assert "trace" not in " ".join(_Page(tmp_path / "index.html").text)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"truth": np.zeros((4, 4, 3))}, "truth of 'cat' is float64 .*give uint8"),
        ({"measurement": np.zeros((1, 4, 4, 3), np.uint8)}, "measurement of 'cat'"),
        ({"truth": np.zeros((4, 4, 2), np.uint8)}, "truth of 'cat'"),
    ],
)
def test_pictures_that_are_none_are_refused(change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        report.append(tmp_path, {**_record(), **change})


def test_an_incomplete_record_is_refused(tmp_path):
    record = {k: v for k, v in _record().items() if k != "measurement"}
    with pytest.raises(ValueError, match=r"lacks \['measurement'\]"):
        report.append(tmp_path, record)
    with pytest.raises(ValueError, match=r"has \['truth'\], columns of their own"):
        report.append(tmp_path, _record(methods=("truth",)))
    with pytest.raises(ValueError, match="records is empty"):
        report.write(tmp_path, "t", "c", [])


def test_a_spoilt_ledger_is_one_clear_error(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON .*another folder"):
        report.append(tmp_path, _record())


def test_nothing_is_printed(capsys, tmp_path):
    report.write(tmp_path, "t", "c", [_record()])
    assert capsys.readouterr() == ("", "")


def test_every_picture_has_a_strip(tmp_path):
    report.append(tmp_path, _record())
    path = next((tmp_path / "pictures").glob("*/cat.png"))
    columns = 2 + len(_record()["methods"])
    with Image.open(path) as image:
        assert image.size[0] > columns * _record()["truth"].shape[1]


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("javascript:alert(1);_x4.png", "./javascript%3Aalert%281%29%3B_x4.png"),
        ("a#b?c%d.png", "./a%23b%3Fc%25d.png"),
        ('"><script>.png', "./%22%3E%3Cscript%3E.png"),
        ("folder/a b.png", "./folder/a%20b.png"),
        (os.fsdecode(b"caf\xe9.png"), "./caf%E9.png"),
    ],
)
def test_a_link_leads_to_its_file_and_to_nothing_else(path, address):
    assert link(path) == address
    assert not set("<>\"'&\udce9") & set(link(path)) and "<" not in shown(path)
    shown(path).encode()


def test_names_that_are_no_text_leave_a_whole_report(tmp_path):
    name = os.fsdecode(b"caf\xe9\n")
    written = report.write(tmp_path, name, name, [_record(name), _record("b")], notes=name)
    assert written.index.exists() and [r["picture"] for r in report.load(tmp_path)] == [name, "b"]
    assert report.readable([name, "caf??", "a", "a", "a-2", ""]) == ["caf??", "caf??-2", "a", "a-2", "a-2-2", "?"]


def _case(**numbers):
    return {"first_bad_step": -1, "psnr": 20.0, "largest": 1.2, **numbers}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (_case(), ""),
        (_case(psnr=float("inf")), ""),
        (_case(first_bad_step=3), "frozen: not finite from step 3"),
        (_case(psnr=float("nan")), "not finite"),
        (_case(largest=float("inf")), "diverged: |x| up to inf"),
        (_case(largest=6.0), "diverged: |x| up to 6"),
        ({"psnr": 20.0}, ""),
    ],
)
def test_what_failed_says_so(case, said, tmp_path):
    record = _record(methods=("dps", "ddrm"))
    record["methods"]["dps"] = {"image": record["methods"]["dps"]["image"], **case}
    assert tables.complaint(record["methods"]["dps"]) == said
    assert report.failures([record]) == (int(said != ""), 2)
    index = report.write(tmp_path, "title", "command", [record]).index.read_text()
    assert ("⚠" in index) == ("⚠" in report.table(report.summarise([record]))) == (said != "")


def test_a_failure_is_never_the_best():
    rows = [{"task": "box", "psnr": 30.0, "frozen": 1}, {"task": "box", "psnr": 20.0, "frozen": 0}]
    rows += [{"task": "box", "psnr": 10.0, "frozen": 0}]
    assert tables.best(rows, "psnr") == {1}


def test_what_is_sound_is_told_from_what_is_damaged(tmp_path):
    report.write(tmp_path, "title", "command", [_record("a"), _record("b")], config={"x": 1})
    head, records, lines = report.sound(tmp_path)
    assert head["config"] == {"x": 1} and len(records) == 2 and lines == []
    with pytest.raises(ValueError, match="damaged or missing"):
        next((tmp_path / "pictures").rglob("0-truth.png")).write_bytes(b"")
        report.load(tmp_path)
    assert len(report.sound(tmp_path)[1]) == 1
    assert report.sound(tmp_path / "nothing") == ({}, [], [])
