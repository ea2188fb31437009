"""The site: guides, a gallery of examples, tables, and the API out of the docstrings.

    pip install -e ".[docs]" && python docs/site.py [OUT]

leaves it in OUT, `site` by default; open OUT/index.html. A link that leads nowhere ends the command with its place.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS, LIBRARY, EXAMPLES = ROOT / "docs", ROOT / "diffinv", ROOT / "examples"
GUIDES = {
    "Restoring": ["pictures", "nonlinear", "mri", "terrain", "degradations", "noise-laws", "choosing"],
    "Priors": ["bring-your-own-prior", "networks", "latent", "consistency", "cascades", "scalespaces", "augmentation"],
    "Tables": ["evaluating", "running-at-scale", "accelerators", "configuration"],
    "Building on it": ["your-own", "design"],
}
SETTINGS = {
    "project": "diffinv",
    "html_title": "diffinv",
    "html_theme": "furo",
    "extensions": ["myst_parser", "sphinx_copybutton"],
    "myst_heading_anchors": 3,
    "suppress_warnings": ["misc.highlighting_failure"],
    "html_show_sphinx": False,
    "copyright": "the diffinv authors, Apache-2.0",
}
ENTRY = re.compile(r"^  (?! )(\S.*)$")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.S | re.M)
PAGE, EXAMPLE = re.compile(r"(?<![\w(\[/])`docs/([\w/.-]+\.md)`"), re.compile(r"(?<!\[)`examples/(\w+)\.py`")
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Info):$")


def linked(text: str, above: str = "") -> str:
    """A page whose mentions of other pages and of examples are links; fenced blocks stay as they are."""
    page = lambda found: f"[{found[1]}]({above}{found[1]})" if (DOCS / found[1]).exists() else found[0]
    example = lambda f: f"[{f[0]}]({above}gallery/{f[1]}.md)" if (EXAMPLES / f"{f[1]}.py").exists() else f[0]
    parts = FENCE.split(text)
    return "".join(part if i % 2 else EXAMPLE.sub(example, PAGE.sub(page, part)) for i, part in enumerate(parts))


def contents(pages: list[str], caption: str = "", depth: int = 1) -> str:
    """Sphinx's list of pages."""
    options = [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", f":maxdepth: {depth}", *options, "", *pages, "```\n"])


def marked(docstring: str) -> str:
    """A docstring as Markdown: equations are indented already; entries of its sections become a list, `>>>` a fence."""
    lines: list[str] = []
    inside = shown = False
    for line in docstring.splitlines():
        if shown != (line.startswith(">>>") or shown and bool(line)):
            lines.append("```" if shown else "```python")
            shown = not shown
        inside = bool(SECTION.match(line)) or inside and (not line or line.startswith("  "))
        if SECTION.match(line):
            lines += [f"**{line.rstrip(':')}**", ""]
        elif inside and (found := ENTRY.match(line)):
            name, colon, said = found[1].partition(": ")
            lines.append(f"- `{name}`: {said}" if colon else f"- {found[1]}")
        else:
            lines.append(line)
    return "\n".join([*lines, "```"] if shown else lines)


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """The head of a definition, a line a parameter where it is long."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    given, back = ast.unparse(node.args), f" -> {ast.unparse(node.returns)}" if node.returns else ""
    short = f"def {node.name}({given}){back}"
    if len(short) <= 100:
        return short
    depth, split = 0, ""
    for letter in given:
        depth += (letter in "([{") - (letter in ")]}")
        split += letter + ("\n   " if letter == "," and not depth else "")
    return f"def {node.name}(\n    {split},\n){back}"


def public(nodes: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """The definitions whose names have no underscore in front."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def described(node: ast.FunctionDef | ast.ClassDef, level: int = 2, above: str = "") -> list[str]:
    """A definition's part of its module's page: its head, what it says of itself, and its methods."""
    lines = [f"{'#' * level} `{above}{node.name}`\n", f"```python\n{signature(node)}\n```\n"]
    lines.append(marked(ast.get_docstring(node) or "") + "\n")
    if isinstance(node, ast.ClassDef):
        for method in public(node.body):
            if ast.get_docstring(method):
                lines += described(method, level + 1, f"{node.name}.")
    return lines


def api(target: Path) -> str:
    """A page for each module with a public name, by room; their list."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        tree, module = ast.parse(path.read_text()), ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found = list(public(tree.body))
        if path.stem == "__init__" or not found:
            continue
        lines = [f"# {module}\n", marked(ast.get_docstring(tree) or "") + "\n"]
        lines += [line for node in found for line in described(node)]
        (target / f"{module}.md").write_text("\n".join(lines))
        rooms.setdefault(module.rpartition(".")[0], []).append(module)
    parts = ["# API\n", "Every module with a public name, by room, out of its docstrings.\n"]
    parts += [part for room in sorted(rooms) for part in (f"## {room}\n", contents(rooms[room]))]
    (target / "index.md").write_text("\n".join(parts))
    return "api/index"


def gallery(target: Path) -> str:
    """The examples: what each says, its picture, its code, a notebook of it; their list."""
    import jupytext

    parts = ["# Examples\n"]
    for path in sorted(EXAMPLES.glob("*.py")):
        code, name, heading = path.read_text(), path.stem, path.stem.replace("_", " ")
        said = marked(ast.get_docstring(ast.parse(code)) or "").strip()
        (target / f"{name}.ipynb").write_text(jupytext.writes(jupytext.reads(code, "py"), "ipynb"))
        shutil.copy(path, target / path.name)
        picture = f"![{heading}]({name}.png)\n" if (target / f"{name}.png").exists() else ""
        links = f"{{download}}`script <{path.name}>`, {{download}}`notebook <{name}.ipynb>`\n"
        (target / f"{name}.md").write_text(f"# {heading}\n\n{said}\n\n{picture}\n{links}\n```python\n{code}```\n")
        parts.append(f"## [{heading}]({name}.md)\n\n{said.splitlines()[0]}\n\n{picture}")
    names = [path.stem for path in sorted(EXAMPLES.glob("*.py"))]
    (target / "index.md").write_text("\n".join([*parts, contents(names).replace(":maxdepth", ":hidden:\n:maxdepth")]))
    return "gallery/index"


def tables(target: Path) -> str:
    """What the commands of papers' tables printed; their list."""
    pages = sorted(path.relative_to(target).with_suffix("").as_posix() for path in target.rglob("*.md"))
    for page in pages:
        path = target / f"{page}.md"
        path.write_text(linked(path.read_text(), "../" * (page.count("/") + 1)))
    (target / "index.md").write_text("# Tables\n\n" + contents(pages))
    return "tables/index"


def assemble(folder: Path) -> None:
    """The site's sources."""
    shutil.copytree(DOCS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "api").mkdir()
    for path in folder.glob("*.md"):
        path.write_text(linked(path.read_text()))
    told = {name for names in GUIDES.values() for name in names}
    more = sorted(path.stem for path in folder.glob("*.md") if path.stem not in told)
    groups = {**GUIDES, **({"More": more} if more else {})}
    lists = [contents([n for n in names if (folder / f"{n}.md").exists()], group) for group, names in groups.items()]
    made = [gallery(folder / "gallery"), tables(folder / "tables"), api(folder / "api")]
    lists.append(contents(made, "More"))
    readme = linked((ROOT / "README.md").read_text().replace("](docs/", "]("))
    hidden = "\n".join(lists).replace(":maxdepth", ":hidden:\n:maxdepth")
    (folder / "index.md").write_text(f"{readme}\n{hidden}")
    (folder / "conf.py").write_text("\n".join(f"{name} = {value!r}" for name, value in SETTINGS.items()))


def main(out: str = "site") -> int:
    """Builds it; Sphinx's status."""
    from sphinx.cmd.build import main as build

    with tempfile.TemporaryDirectory() as folder:
        assemble(Path(folder))
        return build(["-q", "-W", "--keep-going", "-j", "auto", folder, out])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
