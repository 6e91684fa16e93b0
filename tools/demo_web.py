#!/usr/bin/env python
"""Show a detector in the browser: dense, heterogeneous and deployed.

examples:
  python tools/demo_web.py het.py het.pth
  python tools/demo_web.py het.py het.pth --dense dense.py dense.pth
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.show.web_demo import LOCAL, serve
from mmdet_hetconv.utils.arguments import tool_parser
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('demo_web.py', __doc__)
    parser.add_argument('config', help='config file with HetConv')
    parser.add_argument('checkpoint', help='trained checkpoint, not deployed')
    parser.add_argument(
        '--dense',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a dense detector; default: the same function in dense '
        'convolutions, which differs in time only',
    )
    parser.add_argument(
        '--host',
        default=LOCAL,
        help='address to listen on; by default only this machine can reach the page',
    )
    parser.add_argument('--port', type=int, default=7860, help='0 for any that is free')
    parser.add_argument(
        '--max-mb', type=float, default=10, metavar='MB', help='larger uploads are refused'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('demo_web.py'):
        serve(
            args.config,
            args.checkpoint,
            args.dense,
            host=args.host,
            port=args.port,
            max_mb=args.max_mb,
        )


if __name__ == '__main__':
    main()
