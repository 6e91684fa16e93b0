# Faster R-CNN VGG-16-FPN on COCO; depth-wise + 1x1 in the backbone.
_base_ = './faster_rcnn_het_vgg16_scratch.py'

model = dict(backbone=dict(conv_cfg=dict(_delete_=True, type='DepthPointwiseConv')))
