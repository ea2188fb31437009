"""Configurations are read by people: one key a line, and sections that stand together."""

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@every_file
def test_one_key_a_line(path):
    """Short sections, of at most three keys, may stand in one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign):
            assert not isinstance(node.targets[0], ast.Tuple), (
                f"line {node.lineno} sets several fields: give each its own"
            )
        keys = node.keys if isinstance(node, ast.Dict) else node.keywords if isinstance(node, ast.Call) else []
        lines = [key.lineno for key in keys]
        assert len(set(lines)) == len(lines) or len(lines) <= 3, f"line {lines[0]} has several keys: give each its own"


@every_file
def test_a_section_is_written_in_one_place(path):
    """`config.net.update(...)` and a second dict would spread what belongs together."""
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if call.endswith(".update") and call.count(".") > 1]


@every_file
def test_the_head_says_what_it_costs_and_what_comes_out(path):
    told = ast.get_docstring(ast.parse(path.read_text()))
    assert all(f"\n{word}:" in told for word in ("Command", "Expected"))
    assert "\nHardware:" in told or "\nModes:" in told  # each mode then says its own
