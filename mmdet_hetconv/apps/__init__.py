"""What is done with a trained detector: detect, compare, show.

Importing this package imports nothing, as with ``mmdet_hetconv.engine``.
"""
