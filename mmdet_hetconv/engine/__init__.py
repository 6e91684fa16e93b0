"""What stands between a command line and mmengine's Runner.

Importing this package imports nothing: tools take the module they need, and
``import mmdet_hetconv`` stays free of mmdet.
"""
