"""The tools without a checkout: ``python -m mmdet_hetconv TOOL``, the same as ``hetconv``."""

from hetconv import main

if __name__ == '__main__':
    main()
