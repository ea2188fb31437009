"""The frame that all pages share: what it escapes, what it leaves out, and that no page has one of its own."""

from pathlib import Path

from experiments.report.shell import STYLE, paragraphs, shell

ROOT = Path(__file__).parents[2]


def test_texts_are_escaped_and_blocks_are_html():
    page = shell("A <title>", "run <x> & y", ["<b>block</b>"], about="jax <1>", style=".mine { }")
    lines = page.splitlines()
    body = lines[lines.index("<body>") + 1 : lines.index("</body></html>")]
    assert body == [
        "<h1>A &lt;title&gt;</h1>",
        "<pre>run &lt;x&gt; &amp; y</pre>",
        '<p class="soft">jax &lt;1&gt;</p>',
        "<b>block</b>",
    ]
    assert "<title>A &lt;title&gt;</title>" in page and f"<style>{STYLE}.mine {{ }}</style>" in page
    assert 'name="viewport"' in page and page.startswith("<!doctype html>") and page.endswith("</html>\n")


def test_what_is_empty_leaves_no_line():
    lines = shell("T", "", ["", "<p>x</p>", ""]).splitlines()
    assert lines[lines.index("<body>") + 1 :] == ["<h1>T</h1>", "<p>x</p>", "</body></html>"]


def test_notes_are_paragraphs():
    assert paragraphs(["a < b", "c"]) == ["<p>a &lt; b</p>", "<p>c</p>"]


def test_no_other_page_has_a_frame_of_its_own():
    with_frame = [path.name for path in (ROOT / "experiments").rglob("*.py") if "<!doctype" in path.read_text()]
    assert with_frame == ["shell.py"]
