# SSD300 VGG-16 on COCO; depth-wise + 1x1 in the backbone.
_base_ = './ssd300_het_vgg16.py'

model = dict(backbone=dict(conv_cfg=dict(_delete_=True, type='DepthPointwiseConv')))
