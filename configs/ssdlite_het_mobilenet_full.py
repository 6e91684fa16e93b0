# SSDLite-style detector on COCO, from scratch; HetConv in backbone and neck.
_base_ = './ssdlite_het_mobilenet.py'

# The head's pairs stay depth-wise + 1x1: their 486 filters allow p=2 only.
model = dict(neck=dict(use_depthwise=False, conv_cfg=dict(type='HetConv', p=64)))
