"""The site's pages, as docs/site.py makes them: links lead somewhere, equations and lists are kept."""

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("diffinv_site", ROOT / "docs" / "site.py")
site = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of the site's sources; where jupytext lacks, its notebooks are empty."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as context:
        if importlib.util.find_spec("jupytext") is None:
            plain = SimpleNamespace(reads=lambda code, kind: code, writes=lambda code, kind: "{}")
            context.setitem(sys.modules, "jupytext", plain)
        site.assemble(folder)
    return folder


def targets(page):
    """What a page links to, shows, offers and lists, outside of its code."""
    text = page.read_text()
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.S | re.M):
        yield from (f"{line}.md" for line in block.splitlines() if line and not line.startswith(":"))
    plain = site.FENCE.sub("", text)
    plain = re.sub(r"^ {4}.*$", "", plain, flags=re.M)
    yield from re.findall(r"\{download\}`[^<`]*<([^>]*)>`", plain)
    yield from (found for found in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?<!\[)`[^`\n]*`", "", plain)))


def test_every_link_leads_to_a_page_that_is_there(pages):
    checked = 0
    for page in pages.rglob("*.md"):
        for target in targets(page):
            if not re.match(r"(https?:|mailto:|#)", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.relative_to(pages)}: {target}"
                checked += 1
    assert checked > 200


def test_every_page_is_in_a_list(pages):
    listed = {(page.parent / target).resolve() for page in pages.rglob("*.md") for target in targets(page)}
    alone = {page.relative_to(pages).as_posix() for page in pages.rglob("*.md") if page.resolve() not in listed}
    assert alone == {"index.md"}


def test_every_example_has_a_picture_or_a_page_that_shows_it(pages):
    elsewhere = {"cascade": "cascades.md", "terrain": "terrain.md", "own_network": "networks.md"}
    for path in sorted((ROOT / "examples").glob("*.py")):
        shown = (pages / "gallery" / f"{path.stem}.png").exists()
        assert shown or f"{path.stem}.py" in (pages / elsewhere[path.stem]).read_text(), path.stem


def test_mentions_become_links_and_code_stays():
    told = "See `docs/mri.md`, `docs/none.md` and `examples/sweep.py`.\n\n```\ncat `docs/mri.md`\n```\n"
    made = site.linked(told, "../")
    assert "[mri.md](../mri.md)" in made and "`docs/none.md`" in made
    assert "[`examples/sweep.py`](../gallery/sweep.md)" in made and "cat `docs/mri.md`" in made


def test_a_docstring_keeps_its_equations_and_lists_its_arguments():
    told = (
        "Adds.\n\n    y = x + 1\n\nArgs:\n  x: a number,\n    of any kind. z: more.\n  no colon\n\n>>> 1 + 1\n2\n\nEnd."
    )
    assert site.marked(told) == (
        "Adds.\n\n    y = x + 1\n\n**Args**\n\n- `x`: a number,\n    of any kind. z: more.\n- no colon\n\n"
        "```python\n>>> 1 + 1\n2\n```\n\nEnd."
    )
    assert site.marked(">>> 2\n2").endswith("2\n```")


def test_long_signatures_have_a_line_a_parameter():
    import ast

    define = lambda text: ast.parse(text).body[0]
    assert site.signature(define("def f(x, y=1) -> int: ...")) == "def f(x, y=1) -> int"
    names = [f"parameter{i}: tuple[int, ...]" for i in range(5)]
    long = site.signature(define(f"def f({', '.join(names)}, *, z=1): ..."))
    assert long.splitlines()[:2] == ["def f(", "    parameter0: tuple[int, ...],"] and long.endswith("    z=1,\n)")
    assert site.signature(define("class A(B, C): ...")) == "class A(B, C)"


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(tmp_path):
    pytest.importorskip("furo"), pytest.importorskip("myst_parser"), pytest.importorskip("jupytext")
    assert site.main(str(tmp_path)) == 0
    for name in ("index.html", "gallery/sweep.html", "api/diffinv.loop.html", "tables/reguidance.html"):
        assert (tmp_path / name).exists()
