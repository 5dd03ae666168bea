"""Writes the README's picture: ``python reports/listening_map.py build/demo``.

The listening map of the demo where one word decides, as an SVG that follows the reader's theme.
"""

import re
import sys
from pathlib import Path

import harness
from harness.report.figure import stylesheet

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write ``listening-map.svg`` beside this file."""
    figure = harness.load_run(sys.argv[1]).figures()["listening-map"]
    drawings = zip(figure.panels, map(str, figure.drawings), strict=True)
    chosen = [svg for panel, svg in drawings if panel.title.startswith(("phantom_pairs", "Key"))]
    sizes = [
        [int(found) for found in re.findall(r'(?:width|height)="(\d+)"', s)[:2]] for s in chosen
    ]
    width, height = sum(size[0] for size in sizes), max(size[1] for size in sizes)
    style = stylesheet() + "svg{font-family:Helvetica,Arial,sans-serif}"
    parts = [chosen[0], chosen[1].replace("<svg", f'<svg x="{sizes[0][0]}"', 1)]
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{style}</style>{"".join(parts)}</svg>\n'
    )
    (HERE / "listening-map.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
