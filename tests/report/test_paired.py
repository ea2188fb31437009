"""What a wrapper adds to its base: paired differences, with Student's interval."""

import numpy as np
import pytest

from experiments import report

PICTURE = np.zeros((4, 4, 3), np.uint8)


def added(values, task="box"):
    """Records of a base B, of a wrapper of it, and of another method, by (base's PSNR, wrapper's PSNR, its step)."""
    case = lambda psnr, step=-1: {
        "image": PICTURE,
        "psnr": psnr,
        "residual": psnr / 10,
        "floor": 2.0,
        "first_bad_step": step,
    }
    return [
        {"picture": str(i), "task": task, "truth": PICTURE, "measurement": PICTURE,
         "methods": {"B": case(base), "A(B)": case(psnr, step), "C(D)": case(psnr)}}
        for i, (base, psnr, step) in enumerate(values)
    ]  # fmt: skip


def test_what_is_added_is_of_pairs_with_students_interval():
    """Of four pictures t = 3.1824; what failed is left out, and what has no base among the methods is no row."""
    values = [(20.0, 21.0, -1), (25.0, 25.5, -1), (22.0, 22.0, -1), (10.0, 12.5, -1), (20.0, 5.0, 3)]
    (row,) = report.paired(added(values))
    assert (row["method"], row["task"], row["pictures"]) == ("A(B) - B", "box", 4)
    half = 3.182446305284263 * np.std([1.0, 0.5, 0.0, 2.5], ddof=1) / 2
    assert row["psnr_added"] == pytest.approx((1.0, half)) and row["ratio_added"] == pytest.approx((0.05, half / 20))
    assert "ssim_added" not in row and report.paired(added(values[-2:])) == []
    assert [row["task"] for row in report.paired(added(values) + added(values, "blur"))] == ["box", "blur"]
    text = report.table(report.paired(added(values)))
    assert "PSNR / dB |" in text and "+1.00 ± 1.72" in text and "**" not in text


def test_the_page_has_what_is_added_where_there_is_any(tmp_path):
    pages = [report.write(tmp_path / str(n), "t", "c", added([(20.0, 21.0, -1)] * n)).index.read_text() for n in (1, 2)]
    assert ["What is added to the base" in page for page in pages] == [False, True]
    assert "A(B) - B" in pages[1]
