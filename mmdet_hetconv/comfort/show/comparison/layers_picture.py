"""p and error of each layer, as a picture."""

import io
from collections.abc import Mapping

COLOURS = {2: 'C2', 4: 'C0', 8: 'C1', 16: 'C3'}


def draw_layers(layers: Mapping[str, int], errors: Mapping[str, float]) -> bytes:
    """A PNG with a bar for each layer: its p by colour, its relative error by length.

    Args:
        layers: p by name.
        errors: of the calibrated weights, root mean square over the outputs'
            deviation.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(8, 1.2 + 0.2 * len(layers)), layout='constrained')
    axes = figure.subplots()
    names = list(layers)
    colours = [COLOURS.get(layers[name], 'grey') for name in names]
    axes.barh(names, [errors.get(name, 0.0) for name in names], color=colours)
    axes.invert_yaxis()
    axes.set(xlabel='relative error of the calibrated layer', xlim=(0, None))
    axes.tick_params(axis='y', labelsize=7)
    axes.margins(y=0.01)
    used = sorted(set(layers.values()))
    handles = [Patch(color=COLOURS.get(p, 'grey'), label=f'p = {p}') for p in used]
    figure.legend(handles=handles, loc='outside upper right', ncols=len(handles))
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=100)
    return file.getvalue()
