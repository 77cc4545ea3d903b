"""
Draws the pictures of the documents, as SVG below ``docs/pictures``: a cluster, the steps of a put,
and the bars of the table under "Reference result" in ``docs/performance.md``.

``tools/pictures.py`` writes them, ``tools/pictures.py --check`` only checks that they are up to
date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
TABLE = ROOT / "docs" / "performance.md"

FONT = 'font-family="sans-serif" font-size="13"'
INK, OURS, OTHERS, PALE = "#333", "#2a6f97", "#b8b8b8", "#eef3f7"

ROW, LABELS, WIDTH = 22, 150, 420  # of the bars

_CELL = re.compile(r"^((?:put|commit|get|wide) \S+) +(\d+) +(\d+) +([\d.]+) ", re.MULTILINE)


def svg(width: int, height: int, parts: Iterator[str]) -> str:
    """A whole picture, on white so that it is also legible on dark pages."""
    arrow = (
        '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        f' orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT}>'
    lines = [
        head,
        f"<defs>{arrow}</defs>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    return "\n".join([*lines, *parts, "</svg>", ""])


def text(x: float, y: float, words: str, anchor: str = "start", color: str = INK) -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'


def box(x: int, y: int, width: int, height: int, *lines: str, fill: str = PALE) -> str:
    """A box with lines in its middle."""
    shape = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}"'
        f' stroke="{INK}"/>'
    )
    top = y + height / 2 + 5 - 9 * (len(lines) - 1)
    rows = [text(x + width / 2, top + 18 * i, line, "middle") for i, line in enumerate(lines)]
    return "\n".join([shape, *rows])


def line(x1: int, y1: int, x2: int, y2: int, arrow: bool = True, dashed: bool = False) -> str:
    """A line from one point to another."""
    marker = ' marker-end="url(#a)"' if arrow else ""
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}"{marker}{dashes}/>'


def cluster() -> str:
    """Clients, two brokers of which one has a slave, and ZooKeeper."""

    def parts() -> Iterator[str]:
        yield box(20, 40, 130, 50, "producers", "Java, Python, ...")
        yield box(20, 230, 130, 50, "a group of", "consumers")
        yield box(270, 20, 170, 90, "broker 0", "orders 0-0, 0-1", "events 0-0")
        yield box(270, 150, 170, 70, "broker 1", "orders 1-0, 1-1")
        yield box(520, 20, 150, 90, "slave of broker 0", "the same bytes")
        yield box(
            270, 260, 400, 46, "ZooKeeper", "brokers, topics, members and positions", fill="#fff"
        )
        yield line(150, 60, 268, 60)
        yield text(208, 52, "put", "middle")
        yield line(150, 75, 268, 175)
        yield line(268, 100, 150, 240)
        yield line(268, 195, 150, 250)
        yield text(238, 175, "get")
        yield line(440, 65, 518, 65)
        yield text(480, 57, "copy", "middle")
        yield line(355, 110, 355, 148, arrow=False, dashed=True)
        yield line(355, 220, 355, 258, dashed=True)
        yield line(595, 110, 595, 258, dashed=True)
        yield line(150, 270, 268, 280, dashed=True)

    return svg(690, 325, parts())


def put() -> str:
    """The steps of a put that is acknowledged after a flush, from left to right."""
    lanes = (("producer", 60), ("broker: one turn", 130), ("disk", 200), ("consumer", 270))
    steps = (
        (170, 60, 215, 130, "send"),
        (215, 130, 395, 130, "check, add to the batch"),
        (395, 130, 440, 200, "one write"),
        (440, 200, 640, 200, "fdatasync for all that wait"),
        (640, 200, 685, 130, ""),
        (685, 130, 730, 60, "result"),
        (685, 130, 775, 270, "get"),
    )

    def parts() -> Iterator[str]:
        for name, y in lanes:
            yield text(20, y + 5, name)
            yield line(150, y, 800, y, arrow=False, dashed=True)
        for x1, y1, x2, y2, words in steps:
            yield line(x1, y1, x2, y2)
            if y1 == y2:
                yield text((x1 + x2) / 2, y1 - 8, words, "middle")
            else:
                yield text((x1 + x2) / 2 + 12, (y1 + y2) / 2 - 2, words)
        yield text(150, 305, "time: the next batch collects while the disk works")
        yield line(490, 300, 800, 300)

    return svg(820, 325, parts())


def bars(table: str) -> str:
    """Requests per second of each cell, ours over the Java broker's."""
    cells = [(name, float(ratio)) for name, _, _, ratio in _CELL.findall(table)]
    if not cells:
        raise ValueError(f"{TABLE}: no cells under Reference result")
    most = max(ratio for _, ratio in cells)
    height = 60 + ROW * len(cells)

    def parts() -> Iterator[str]:
        yield text(20, 22, "Requests per second, ours over the Java broker's, one core each")
        one = LABELS + WIDTH / most
        for row, (name, ratio) in enumerate(cells):
            y = 36 + ROW * row
            color = OURS if ratio >= 1 else OTHERS
            yield text(LABELS - 10, y + 14, name, "end")
            width = round(WIDTH * ratio / most, 1)
            place = f'x="{LABELS}" y="{y + 2}" width="{width}" height="{ROW - 6}"'
            yield f'<rect {place} fill="{color}"/>'
            yield text(LABELS + width + 6, y + 14, f"{ratio:.2f}")
        yield line(round(one), 32, round(one), height - 22, arrow=False, dashed=True)
        yield text(one, height - 8, "the Java broker", "middle")

    return svg(LABELS + WIDTH + 70, height, parts())


def pictures() -> dict[str, str]:
    """All pictures, by file name; the bars are of the first table, not of other hosts' below it."""
    after = TABLE.read_text("utf-8").partition("\n## Reference result")[2]
    section = re.split(r"\n##+ ", after, maxsplit=1)[0]
    return {"cluster.svg": cluster(), "put.svg": put(), "benchmarks.svg": bars(section)}


def main() -> None:
    """Write or check the pictures."""
    stale = []
    for name, content in pictures().items():
        path = PICTURES / name
        if not path.exists() or path.read_text("utf-8") != content:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(content, "utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"run tools/pictures.py: {', '.join(stale)} of docs/pictures are not up to date")


if __name__ == "__main__":
    main()
