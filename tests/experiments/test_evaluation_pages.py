"""The table's forms: Markdown, LaTeX, CSV, the page, the ledger, and what lays a cell beside what was kept."""

import base64
import csv
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments.evaluation import accounts, exhibits, items, printed, shards, sheets, verification
from experiments.evaluation.items import Item
from experiments.evaluation.shards import Result
from experiments.evaluation.summary import Found

ROWS = [
    {"task": "box_1/2", "method": "DPS & co", "psnr": (20.5, 0.25), "nfe": 100.0, "failed": 0},
    {"task": "box_1/2", "method": "DDRM", "psnr": (21.0, 0.5), "nfe": 20.0, "failed": 0},
    {"task": "box_1/2", "method": "MCG", "psnr": (22.0, 0.5), "nfe": 20.0, "failed": 1},
    {"task": "x4", "method": "DDRM", "note": "not possible: 50 % of $\\sigma$"},
]
SHAPE = (4, 4, 3)


def cell(label="DPS", task="box"):
    settings = {"task": task, "sigma_y": 0.05}
    return SimpleNamespace(
        task=SimpleNamespace(title=task),
        label=label,
        stem=label,
        base=None,
        name=f"{task} / {label}",
        settings=lambda: settings,
    )


def result(i, draw=0, made_by="1", **scores):
    plain = {"psnr": 20.0, "feature_distance": 0.5, "residual": 1.0, "floor": 2.0, "largest": 1.0, "seconds": 0.5}
    about = {"made_by": {"jax": made_by}, "batch": 2, "compile_seconds": 3.0, "bytes": 10, "bytes_measured": 0}
    x = shards.stored(np.full(SHAPE, i / 10))
    return Result(Item(f"{i:032x}", draw), x, {**plain, "first_bad_step": -1.0, **scores}, about)


def test_latex_is_escaped_and_ruled_between_tasks():
    text = sheets.latex(ROWS, "50 % & more_")
    assert "\\caption{50 \\% \\& more\\_}" in text and "DPS \\& co" in text and "\\$\\textbackslash{}sigma\\$" in text
    body = text.splitlines()
    assert [line for line in body if line == "\\midrule"] == ["\\midrule"] * 2
    lines = [line for line in body if line.endswith("\\\\")]
    assert len(lines) == 5 and {line.count(" & ") for line in lines} == {5}
    assert "\\textbf{21.00 $\\pm$ 0.50}" in text and "\\textbf{22.00" not in text, "a failure is never best"
    assert "\\begin{tabular}{llrrrl}" in text


def test_csv_has_both_numbers_of_a_pair():
    rows = list(csv.DictReader(io.StringIO(sheets.comma_separated(ROWS))))
    assert (rows[0]["psnr"], rows[0]["psnr_half"], rows[0]["method"]) == ("20.5", "0.25", "DPS & co")
    assert rows[3]["psnr"] == "" and rows[3]["note"].endswith("$\\sigma$")


def test_a_comparison_says_its_word():
    row = {"task": "box", "psnr_added": (1.0, 0.25), "psnr_word": "better", "pictures": 8}
    assert sheets.worded([row]) == [{"task": "box", "psnr_added": "+1.00 ± 0.25, better", "pictures": 8}]


def test_markdown_leaves_out_what_is_empty():
    text = sheets.markdown("T", "python -m x", ["a note"], {"Means": ROWS, "Nothing": []})
    assert text.startswith("# T\n\n`python -m x`\n\na note\n\n## Means\n\n|") and "Nothing" not in text


def test_the_best_the_middle_and_the_worst():
    every = [result(i, feature_distance=float(i)) for i in range(5)]
    chosen = [(rank, int(each.item.picture, 16)) for rank, each in exhibits.ranked(every[::-1])]
    assert chosen == [("best", 0), ("middle", 2), ("worst", 4)]
    failed = exhibits.ranked([*every, result(9, first_bad_step=1.0)])
    assert [int(each.item.picture, 16) for _, each in failed] == [0, 2, 9]
    assert [rank for rank, _ in exhibits.ranked(every[:1])] == ["best"] and exhibits.ranked([]) == []
    by_psnr = [result(i, psnr=float(i)) for i in range(3)]
    for each in by_psnr:
        del each.scores["feature_distance"]
    assert [int(each.item.picture, 16) for _, each in exhibits.ranked(by_psnr)] == [2, 1, 0]


def test_the_page_shows_truth_measurement_and_reconstruction():
    found = Found(cell("<b>"), {each.item: each for each in (result(i, feature_distance=i / 10) for i in range(3))})
    truth = {each.picture: np.full(SHAPE, -1.0) for each in found.results}
    names = {each.picture: f"p&{int(each.picture, 16)}" for each in found.results}
    seen = lambda _, chosen: np.full((len(chosen), *SHAPE), 99, np.uint8)
    text = exhibits.gallery("box", [found], truth, names, seen)
    assert "&lt;b&gt;" in text and "<b>" not in text and "best: p&amp;0" in text and "worst: p&amp;2" in text
    images = [base64.b64decode(each) for each in re.findall(r"base64,([^\"]+)", text)]
    pixels = [np.asarray(Image.open(io.BytesIO(each))) for each in images]
    assert [each.shape for each in pixels] == [(4, 12, 3)] * 3
    assert pixels[2][:, :4].max() == 0 and (pixels[2][:, 4:8] == 99).all() and abs(int(pixels[2][0, 8, 0]) - 153) <= 1
    refused = exhibits.gallery("box", [Found(cell(), {}, "no <spectrum>")], {}, {}, seen)
    assert "not possible: no &lt;spectrum&gt;" in refused


def test_the_overview_has_a_row_a_task_of_the_middle_picture():
    truth = {f"{i:032x}": np.full(SHAPE, i / 10) for i in range(3)}
    cells = [
        Found(
            cell(label, task), {each.item: each for each in (result(i, feature_distance=abs(i - at)) for i in range(3))}
        )
        for task, at in (("box", 0), ("blur", 2))
        for label in ("DPS", "DAPS")
    ]
    assert exhibits.middle(cells[:2]) == f"{1:032x}" and exhibits.middle([Found(cell(), {})]) is None
    asked = []
    seen = lambda each, pictures: (asked.append((each.task.title, pictures)), np.zeros((1, *SHAPE), np.uint8))[1]
    image = exhibits.overview(cells, truth, seen)
    assert asked == [("box", [f"{1:032x}"]), ("blur", [f"{1:032x}"])]
    two = exhibits.overview(cells[:2], truth, seen)
    assert image.width == two.width and image.height > 1.8 * two.height - 20
    assert exhibits.overview([Found(cell(), {})], truth, seen) is None


def test_a_plot_has_a_dot_for_each_mean():
    rows = [{**row, "psnr": (20.0 + i, 0.5)} for i, row in enumerate(ROWS[:2])]
    text = exhibits.scatter("box_1/2", rows, "psnr")
    assert text.count("<circle") == 2 and "DPS &amp; co" in text and ">100<" in text and ">20<" in text
    heights = [float(each) for each in re.findall(r'cy="([\d.]+)"', text)]
    assert heights[0] > heights[1], "better is higher"
    assert exhibits.scatter("x4", ROWS, "psnr") == ""
    assert exhibits.scatter("box_1/2", [{**ROWS[0], "psnr": (20.0, float("nan"))}], "psnr").count("<circle") == 1


@pytest.fixture
def table():
    results = [result(0), result(0, 1, psnr=21.123456789), result(1, made_by="2", psnr=float("nan"))]
    found = Found(cell(), {each.item: each for each in results})
    known = items.Set(np.zeros((2, *SHAPE), np.uint8), ["a", "b"], [f"{i:032x}" for i in range(2)], "")
    return found, accounts.ledger_of(
        {"title": "T"}, known, [found], [{"task": "box", "method": "DPS", "failed": 1}], {"weights": "ab"}
    )


def test_the_ledger_says_all_that_is_needed_to_compute_again(table):
    content = json.loads(accounts.dumped(table[1]))
    assert content["pictures"] == [{"name": name, "sha256": f"{i:032x}"} for i, name in enumerate("ab")]
    entry = content["cells"][0]
    assert (
        entry["cell"] == "box / DPS"
        and entry["settings"] == {"task": "box", "sigma_y": 0.05, "weights": "ab"}
        and entry["failed"] == 1
    )
    assert [each["jax"] for each in entry["made_by"]] == ["1", "2"] and entry["wall_seconds"] == 1.5
    assert entry["scores"]["psnr"] == [[20.0, 21.1235], [None, None]] and "versions" in content
    assert content["cells"][0]["scores"]["residual"] == [[1.0, 1.0], [1.0, None]]


def test_a_cell_is_laid_beside_a_ledger(table, tmp_path):
    path = tmp_path / "ledger.json"
    path.write_bytes(accounts.dumped(table[1]))
    kept = accounts.scores_of(path, "box / DPS")
    assert kept[Item(f"{0:032x}", 1)]["psnr"] == 21.1235 and len(kept) == 3
    assert table[1]["cells"][0]["constants"] == {}, "one item is missing"
    again = dict(table[0].results)
    told = verification.compared(kept, again)
    assert told["same"] and told["items"] == 3 and told["picture"] is None and 0 < told["scores"] < 1e-5
    first = next(iter(again))
    again[first] = again[first]._replace(scores={**again[first].scores, "psnr": 20.1})
    told = verification.compared(kept, again)
    assert (
        not told["same"]
        and told["scores"] == pytest.approx(0.1 / 20.1)
        and "NOT the same" in verification.told(told, "c")
    )
    with pytest.raises(ValueError, match="has no cell 'box / X'; it has box / DPS"):
        accounts.scores_of(path, "box / X")
    path.write_text("[]")
    with pytest.raises(ValueError, match="is no ledger of a table"):
        accounts.scores_of(path, "box / DPS")
    with pytest.raises(ValueError, match="is no ledger of a table"):
        accounts.scores_of(tmp_path / "none.json", "box / DPS")


def test_what_is_the_same_of_every_item_is_told_once(tmp_path):
    results = [result(0, psnr=20.0), result(1, residual=1.5)]
    known = items.Set(np.zeros((2, *SHAPE), np.uint8), ["a", "b"], [f"{i:032x}" for i in range(2)], "")
    found = Found(cell(), {each.item: each for each in results})
    content = accounts.ledger_of({}, known, [found], [{"task": "box", "method": "DPS"}], {})
    entry = content["cells"][0]
    assert entry["constants"] == {"feature_distance": 0.5, "floor": 2.0, "largest": 1.0, "seconds": 0.5}
    assert set(entry["scores"]) == {"psnr", "residual", "first_bad_step"}
    (tmp_path / "ledger.json").write_bytes(accounts.dumped(content))
    read = accounts.scores_of(tmp_path / "ledger.json", "box / DPS")
    assert read == {each.item: each.scores for each in results}


def test_a_cell_is_laid_beside_its_pictures(table):
    kept = table[0].results
    assert verification.told(verification.compared(kept, kept), "c").startswith("c: 3 items again, the same bits;")
    first = next(iter(kept))
    moved = {**kept, first: kept[first]._replace(x=kept[first].x + np.uint16(100))}
    told = verification.compared(kept, moved)
    assert told["picture"] == pytest.approx(200 / 65535) and not told["same"]
    nan = {**kept, first: kept[first]._replace(scores={**kept[first].scores, "psnr": float("nan")})}
    assert verification.compared(kept, nan)["scores"] == np.inf
    with pytest.raises(ValueError, match="nothing that was kept is of these pictures"):
        verification.compared({}, kept)


def test_a_number_that_nobody_compared_is_marked():
    measured = [{"task": "box", "method": "DPS", "lpips": (0.2, 0.01)}]
    rows = printed.rows("dps_ffhq", measured)
    assert len(rows) == 10 and all(row["printed"].endswith("(unverified)") for row in rows)
    ours = [row["here"] for row in rows if row["task"] == "box"]
    assert ours == ["not computed", (0.2, 0.01)]
    assert "not compared with the paper" in printed.notes("dps_ffhq")[0] and printed.rows("", measured) == []
    assert printed.notes("") == []
