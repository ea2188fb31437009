"""Reports of pictures that were degraded when they came: no truth is known."""

import numpy as np

from diffinv.display import enlargement
from experiments import report


def record():
    """A picture whose measurement is half as large as what was restored."""
    draw = lambda *shape: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    case = {"image": draw(8, 12, 3), "residual": 1.0, "floor": 1.0, "nfe": 3, "seconds": 0.1, "first_bad_step": -1}
    return {"picture": "a", "task": "bicubic", "measurement": draw(4, 6, 3), "methods": {"DPS": case}}


def test_a_truth_need_not_be_known(tmp_path):
    """Its column is missing everywhere, and a row is as large as what was restored, not as what was measured."""
    report.append(tmp_path, record())
    (loaded,) = report.load(tmp_path)
    assert "truth" not in loaded and loaded["measurement"].shape == (4, 6, 3)
    report.write(tmp_path, "t", "c", [loaded])
    page = (tmp_path / "index.html").read_text()
    width = 12 * enlargement((12, 8), 192)
    assert "<figcaption>truth" not in page and page.count(f'width="{width}"') == 2
