"""Draw the folders of the package and which imports which, from the code.

    python docs/draw_structure.py docs/images/structure.png

An arrow is left out where a longer way leads to the same folder.
"""

import argparse
import ast
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

matplotlib.use('Agg')
PACKAGE = Path(__file__).parents[1] / 'mmdet_hetconv'
# Of the core, of what stands above it, and aside.
COLOURS = dict(workflow='#2b8a3e', comfort='#c77d0a', utils='#888888')
COLOUR = '#2f6db5'


def folders() -> dict[str, int]:
    """Lines of Python in every folder."""
    names = sorted(path.parent.name for path in PACKAGE.glob('*/__init__.py'))
    return {
        name: sum(len(path.read_text().splitlines()) for path in PACKAGE.glob(f'{name}/**/*.py'))
        for name in names
    }


def imported(folder: str, names: set[str]) -> set[str]:
    """The folders that one imports, anywhere in its files."""
    found = set()
    for path in PACKAGE.glob(f'{folder}/**/*.py'):
        inside = path.relative_to(PACKAGE).parent.parts
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            words = (node.module or '').split('.')
            if node.level:
                words = [*inside[: len(inside) - node.level + 1], *words]
            elif words[0] == 'mmdet_hetconv':
                words = words[1:]
            else:
                continue
            found.update(words[:1])
    return (found & names) - {folder}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out')
    args = parser.parse_args()
    lines = folders()
    arrows = {name: imported(name, set(lines)) for name in lines}

    def height(name: str) -> int:
        return 1 + max(map(height, arrows[name]), default=-1)

    def reached(name: str) -> set[str]:
        return arrows[name].union(*map(reached, arrows[name]))

    rows: dict[int, list[str]] = {}
    for name in lines:
        rows.setdefault(height(name), []).append(name)
    places = {
        name: (column - (len(row) - 1) / 2, level)
        for level, row in rows.items()
        for column, name in enumerate(row)
    }
    figure, axes = plt.subplots(figsize=(6.5, 8), layout='constrained')
    for name, (x, y) in places.items():
        axes.text(
            x,
            y,
            f'{name}\n{lines[name]:,} lines',
            ha='center',
            va='center',
            fontsize=9,
            bbox=dict(
                boxstyle='round,pad=0.5', facecolor='white', edgecolor=COLOURS.get(name, COLOUR)
            ),
        )
        direct = arrows[name] - set().union(*map(reached, arrows[name]))
        for other in direct:
            axes.annotate(
                '',
                places[other],
                (x, y),
                arrowprops=dict(arrowstyle='->', color='grey', shrinkA=22, shrinkB=22),
            )
    widest = max(map(len, rows.values())) / 2
    axes.set(xlim=(-widest, widest), ylim=(-0.6, max(rows) + 0.6))
    axes.set_axis_off()
    figure.savefig(args.out, dpi=110)


if __name__ == '__main__':
    main()
