"""The frame of every page: one style, the heading, the command that makes the page again, and blocks of HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable

STYLE = """
:root { color-scheme: light dark; --ink: #1b1d22; --soft: #666b76; --line: #dfe2e8; --paper: #fff; --panel: #f5f6f8;
  --best: #e4f2e7; --best-ink: #12602b; --flag: #fdeaea; --flag-ink: #a01c1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --soft: #9aa1ae; --line: #333842; --paper: #14161a;
  --panel: #1d2026;
  --best: #16331f; --best-ink: #8fdca5;
  --flag: #3d1a1b; --flag-ink: #ffb0ac; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 2rem 4rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .75rem; font-size: 1.7rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 2.5rem 0 .75rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
h2 small, .soft { color: var(--soft); font-weight: 400; font-size: .85rem; }
p { max-width: 60rem; margin: .4rem 0; }
pre { margin: 0 0 .5rem; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--panel); font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.means th, .means td { padding: .35rem .9rem; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; }
.means thead th { color: var(--soft); font-size: .82rem; font-weight: 600; }
.means .n { text-align: right; }
.means tr.new > * { border-top: 2px solid var(--line); }
.best { color: var(--best-ink); font-weight: 650; } td.best { background: var(--best); }
td.flagged { background: var(--flag); color: var(--flag-ink); font-weight: 650; }
.pictures > tbody > tr > * { padding: 0 1.1rem 1.5rem 0; vertical-align: top; text-align: left; }
.pictures th { min-width: 6rem; max-width: 10rem; font-weight: 600; overflow-wrap: anywhere; }
figure { margin: 0; width: min-content; }
figcaption { margin-bottom: .3rem; font-weight: 600; font-size: .85rem; white-space: nowrap; }
img { display: block; border-radius: 3px; image-rendering: pixelated; outline: 1px solid var(--line); }
dl { display: grid; grid-template-columns: auto auto; gap: 0 .5rem; margin: .45rem 0 0; font-size: .78rem;
  line-height: 1.55; font-variant-numeric: tabular-nums; white-space: nowrap; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; }
.flag { margin: .45rem 0 0; padding: .2rem .45rem; border-radius: 4px; background: var(--flag); color: var(--flag-ink);
  font-size: .78rem; font-weight: 600; }
@media print { body { max-width: none; padding: 0; } tr { break-inside: avoid; } }
"""


def paragraphs(notes: Iterable[str]) -> list[str]:
    """Each note as an escaped paragraph."""
    return [f"<p>{html.escape(note)}</p>" for note in notes]


def shell(title: str, command: str, blocks: Iterable[str], about: str = "", style: str = "") -> str:
    """A whole page as HTML, which asks for nothing from outside.

    Args:
      title: the heading and the name of the window; escaped here, as are `command` and `about`.
      command: what makes the page again, under the heading; "" leaves it out.
      blocks: HTML already; an empty one leaves no line.
      about: a line in soft ink under the command, such as versions or settings; "" leaves it out.
      style: rules of this page beside `STYLE`.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}{style}</style>'
    )
    first = [
        f"<h1>{html.escape(title)}</h1>",
        f"<pre>{html.escape(command)}</pre>" if command else "",
        f'<p class="soft">{html.escape(about)}</p>' if about else "",
    ]
    body = "\n".join(filter(None, [*first, *blocks]))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
