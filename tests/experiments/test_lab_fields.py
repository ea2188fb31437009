"""Configurations of the exact lab and of the page of scale-spaces: what ships is accepted, nonsense is refused."""

import pytest
from ml_collections import ConfigDict

from configs import exact_lab, scalespace
from diffinv import schema
from experiments.lab import fields as lab_fields
from experiments.scales import fields as scalespace_fields
from experiments.scales.fields import FIELDS


@pytest.mark.parametrize("mode", ["", "smoke", "field"])
def test_the_labs_own_configurations_are_accepted(mode):
    config = exact_lab.get_config(mode)
    assert not list(schema.refusals(lab_fields.fields(config), config.to_dict(), "config"))
    lab_fields.check(config)


@pytest.mark.parametrize("mode", ["", "smoke"])
def test_the_scale_spaces_own_configurations_are_accepted(mode):
    config = scalespace.get_config(mode)
    schema.require(FIELDS, config.to_dict())
    scalespace_fields.check(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "../x"), ("name", ""), ("methods", "DPZ"), ("methods", "DPS,DPS"), ("problems", "levy,levi"),
        ("seed", -1), ("rows", 1), ("tuning_rows", 0), ("draws", 1), ("projections", 0), ("rows", float("nan")),
        ("reduced", {"levi": {}}), ("reduced", {"levy": {"draws": 0}}), ("reduced", {"levy": {"drawz": 9}}),
        ("reduced", {"levy": 3}), ("reduced", 3), ("more", 1),
    ],
)  # fmt: skip
def test_the_lab_refuses_nonsense_in_one_line(name, value):
    given = exact_lab.get_config().to_dict() | {name: value}
    lines = list(schema.refusals(lab_fields.fields(ConfigDict(given)), given, "config"))
    assert lines and lines[0].startswith("config") and "\n" not in lines[0]


def test_the_lab_takes_no_more_memory_than_it_says():
    config = exact_lab.get_config()
    config.problems, config.draws = "gaussian8", 100_000
    lab_fields.check(config)
    config.problems, config.reduced.levy.draws = "levy", 100_000
    with pytest.raises(ValueError, match="of levy are 24 and 100000, .* the limit is 4 GiB"):
        lab_fields.check(config)


NONSENSE = {
    "name": ["", "..", "a/b"], "data": ["", "pat"], "crops": [0, 1], "draws": [0, 1, 10**9], "times": [2], "curve": [1],
    "strip": [0], "sigma_blur": [(), (0.0,), ("x",), 3.0], "blur_max": [0, 0.5, float("inf")], "delta": [0, -1],
    "offset": [0, float("nan")], "features": [1, 10**6, 96.0], "reverse": ["x"], "levels": [0], "matched": [1798],
    "pictures": [3, "a\0b"], "network_images": [7], "network_levels": [8], "seed": [-1, 1.5],
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_the_page_of_scale_spaces_refuses_nonsense(name):
    for value in NONSENSE[name]:
        assert schema.refusal(FIELDS[name], value, f"config.{name}").startswith(f"config.{name} is ")


def test_a_width_of_blurring_is_there_once():
    with pytest.raises(ValueError, match="widths that differ"):
        scalespace_fields.check(ConfigDict({"sigma_blur": (1.0, 2.0, 1.0)}))
