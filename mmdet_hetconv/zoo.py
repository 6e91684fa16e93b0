"""The configs of the zoo, wherever the package is installed.

They lie in ``.mim`` inside the package, as those of OpenMMLab's packages do.
"""

import difflib
from pathlib import Path

CONFIGS = Path(__file__).parent / '.mim' / 'configs'


def config_path(name: str) -> str:
    """The path of a config of the zoo, for scripts and for ``_base_``.

    A config file inherits from it by one expression, in which mmengine knows
    no imported names::

        _base_ = __import__('mmdet_hetconv').config_path('faster_rcnn_het_r50')

    Args:
        name: the config's name, with or without ``.py``.

    Returns:
        str: the absolute path of the file.

    Raises:
        ValueError: there is no such config.
    """
    stem = name.removesuffix('.py')
    path = CONFIGS / f'{stem}.py'
    if not path.is_file():
        names = sorted(file.stem for file in CONFIGS.glob('*.py'))
        close = difflib.get_close_matches(stem, names, n=3)
        raise ValueError(
            f'no config {name!r} in {CONFIGS}; close to it: {", ".join(close) or "none"}'
        )
    return str(path.resolve())
