"""Plain tables for the terminal."""

from collections.abc import Mapping, Sequence


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print `rows`, which all have the same names, in aligned columns under `title`."""
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
