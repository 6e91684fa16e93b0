"""Arguments that several tools share."""

import argparse
import ast
import math
import os

from mmengine.config import DictAction


def literal(node: ast.expr) -> object:
    """Evaluate an expression of lists, dicts and constants; ValueError for others."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        words = {word.arg: literal(word.value) for word in node.keywords}
        if None not in words:  # that is **, which stands for anything
            return words
    if isinstance(node, ast.List):
        return [literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(literal(item) for item in node.elts)
    if isinstance(node, ast.Dict) and all(node.keys):
        return {ast.literal_eval(k): literal(v) for k, v in zip(node.keys, node.values) if k}
    return ast.literal_eval(node)


class OptionsAction(DictAction):
    """``--cfg-options KEY=VALUE ...``, as in every tool of mmdet.

    A value may also be, or hold, dicts: ``key="[dict(type='A'), dict(type='B')]"``.
    """

    @staticmethod
    def _parse_iterable(val: str) -> object:
        # mmengine has no other place for it; what is no such expression is its own.
        if 'dict(' in val or '{' in val:
            try:
                return literal(ast.parse(val, mode='eval').body)
            except (SyntaxError, ValueError):
                pass
        return DictAction._parse_iterable(val)

    def __call__(self, parser, namespace, values, option_string=None):
        for pair in values:
            if '=' not in pair:
                raise argparse.ArgumentError(self, f'{pair!r} is not of the form KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)


def tool_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """Make a tool's parser; its docstring becomes the description and the examples."""
    description, _, examples = (doc or '').partition('examples:')
    return argparse.ArgumentParser(
        prog=prog,
        description=description.strip(),
        epilog=f'examples:{examples}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_cfg_options(
    parser: argparse.ArgumentParser, text: str = 'overwrite keys of the config'
) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help=text
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add ``--shape``."""
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="height and width of the image; default: the test pipeline's",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and torchrun's own ``--local-rank``."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes of a distributed run',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='by torchrun')


def add_run(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments that train.py and test.py share; `verb` names the one."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='where logs and checkpoints go; work_dirs/CONFIG by default',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help=f'{verb} on the COCO or VOC data set in DIR instead of the '
        "config's; classes are read from its annotations",
    )
    parser.add_argument(
        '--skip-checks', action='store_true', help='take annotations and images as they are, unread'
    )
    add_cfg_options(
        parser,
        'overwrite keys of the config, e.g. train_cfg.max_epochs=3 or '
        'a list, key="[a,b]"; after --data-root',
    )
    add_launcher(parser)


def note_rank(args: argparse.Namespace) -> None:
    """Tell mmengine the rank that torchrun put on the command line."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def add_conversion(parser: argparse.ArgumentParser, size: str, text: str) -> None:
    """Add config, checkpoint, ``--out`` and the flag `size` of an image's height and width."""
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint, deployed or not')
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write')
    parser.add_argument(size, type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help=text)
    add_cfg_options(parser)


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is less than 1')
    return number


def add_number_of_images(parser: argparse.ArgumentParser, images: int, text: str) -> None:
    """Add ``--calib``; `text` says what the images are used for."""
    parser.add_argument(
        '--calib', type=count, default=images, metavar='N', help=f'{text} (default: {images})'
    )


def add_calibration(parser: argparse.ArgumentParser, images: int, text: str) -> None:
    """Add ``--calib``, ``--data-root`` and ``--seed``; `text` says what the images are used for."""
    add_number_of_images(parser, images, text)
    parser.add_argument('--seed', type=int, default=0, help='of the choice of images')
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help="take the images from DIR instead of the config's training set",
    )


def add_no_eval(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-eval``."""
    parser.add_argument(
        '--no-eval',
        dest='eval',
        action='store_false',
        help='do not evaluate before and after, though --data-root, or the config, has '
        'annotations of these classes',
    )


# How long --distil trains unless told otherwise, whichever is over first.
DISTIL = dict(steps=1000, minutes=12.0)


def length(text: str) -> dict[str, float]:
    """Parse a length of training: '800' is steps, '15m' is minutes."""
    is_minutes = text.endswith('m')
    try:
        number = float(text[:-1]) if is_minutes else int(text)
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(
            f'{text!r} is neither a number of steps nor one of minutes, as 15m'
        )
    return dict(minutes=number) if is_minutes else dict(steps=number)


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return number


def add_budget(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add ``--target-macs`` and ``--target-ms``; returns their mutually exclusive group."""
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        '--target-macs',
        type=positive,
        metavar='SHARE',
        help='choose a p for each layer, so that the detector has this share of the dense '
        "one's MACs, as 0.4; the config is written beside the checkpoint",
    )
    budget.add_argument(
        '--target-ms',
        type=positive,
        metavar='MS',
        help='the same for so many milliseconds of backbone, neck and dense head, deployed in '
        'fp32 on this machine',
    )
    return budget
