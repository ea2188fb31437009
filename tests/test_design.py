"""docs/design.md: its tree is the project's, its layers are those that are enforced, its central types exist."""

import re
from pathlib import Path

import pytest
import test_house

import diffinv as di
from diffinv import measurement, prior, process, typing
from diffinv.operators import base

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/design.md").read_text()


def section(title: str) -> str:
    """What stands in the first fence after a heading."""
    return PAGE.split(title, 1)[1].split("```")[1]


def named() -> set[str]:
    """Every path of `diffinv/` and `experiments/` that the tree names, modules without their suffix."""
    found, top = set(), ""
    for entry in re.sub(r"\n {5,}", " ", section("## 3. The rooms")).strip("\n").split("\n"):
        first, *rest = entry.split()
        if not entry.startswith(" "):
            top = first if first in ("diffinv/", "experiments/") else ""
        elif top and first.endswith("/"):
            names = " ".join(rest).split(":")[0].split()
            found |= {top + first + name.rstrip("/") for name in names} | {top + first.rstrip("/")}
        elif top:
            found |= {top + word.rstrip(":").removesuffix(".py") for word in [first, *rest] if ".py" in word[-4:]}
    return found


def standing() -> set[str]:
    """The same of what there is: modules, folders that hold some, and the folder of shipped weights."""
    modules = [path for room in ("diffinv", "experiments") for path in (ROOT / room).rglob("*.py")]
    found = {path.with_suffix("") for path in modules if path.stem != "__init__"}
    found |= {path.parent for path in modules} | {path.parent for path in (ROOT / "diffinv").rglob("*.safetensors")}
    return {path.relative_to(ROOT).as_posix() for path in found} - {"diffinv", "experiments"}


def test_the_tree_is_the_projects():
    told, there = named(), standing()
    opened = {name.removesuffix("...") for name in told if name.endswith("/...")}
    told -= {f"{folder}..." for folder in opened}
    unnamed = {name for name in there - told if name.rpartition("/")[0] + "/" not in opened}
    assert unnamed == set(), "docs/design.md does not name these"
    assert told - there == set(), "docs/design.md names these, and they are not there"


def test_the_layers_are_those_that_are_enforced():
    told = PAGE.split("a test parses them):", 1)[1].split(".\nThe families")[0].split("·")
    layers = {int(height): set(rooms) for height, *rooms in (part.split() for part in told)}
    assert layers == {height: set(rooms) for height, rooms in enumerate(test_house.LAYERS)}


HOMES = (di, typing, prior, process, measurement, base)


@pytest.mark.parametrize("name", re.findall(r"(?m)^class (\w+)", section("## 2. Central types")))
def test_central_types_exist(name):
    assert any(hasattr(home, name) for home in HOMES), f"docs/design.md speaks of {name}"
