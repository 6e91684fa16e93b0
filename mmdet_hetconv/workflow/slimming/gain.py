"""One sentence on what a converted detector gained over the dense one."""

from collections.abc import Sequence
from typing import Any

# Less than that is within what timing varies by.
LEAST = 1.03


def gain(forms: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Whether it is faster, and what it cost.

    Args:
        forms: of the dense detector as it was given, then of its other forms and the
            converted one's, last the one that is shipped; each with ``label``,
            ``ms`` of an image, ``macs`` (None if not counted) and ``metrics`` by name.
    """
    given, shipped = forms[0], forms[-1]
    fastest = min((f for f in forms if f['label'].startswith('dense')), key=lambda f: f['ms'])
    form = fastest['label'].removeprefix('dense, ')
    precision = shipped['label'].rpartition('(')[2].removesuffix(')')
    parts = []
    names = list(given['metrics'])
    if names:
        name = next((n for n in names if n.endswith('mAP')), names[0])
        a, b = (form['metrics'][name] for form in (given, shipped))
        parts.append(f'{a:.3f} to {b:.3f} {name.rpartition("_")[2]}')
    if given['macs'] and shipped['macs']:
        parts.append(f'{given["macs"] / shipped["macs"]:.1f}x fewer MACs')
    if shipped['ms'] * LEAST > fastest['ms']:
        cost = f' ({", ".join(parts)})' if parts else ''
        return False, (
            f'nothing is gained: {shipped["ms"]:.1f} ms in {precision}, the dense detector takes '
            f'{fastest["ms"]:.1f} ms, {form}{cost}'
        )
    text = f'{given["ms"] / shipped["ms"]:.1f}x faster in {precision} than the dense one as given'
    times = [f'{given["ms"]:.1f}', f'{shipped["ms"]:.1f} ms']
    if fastest is not given:
        text += f' and {fastest["ms"] / shipped["ms"]:.1f}x than that one {form}'
        times.insert(1, f'{fastest["ms"]:.1f}')
    return True, ', '.join([*parts, f'{text}: {", ".join(times)}'])
