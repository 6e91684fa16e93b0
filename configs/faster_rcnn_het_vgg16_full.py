# Faster R-CNN VGG-16-FPN on COCO; HetConv in backbone, neck and RPN.
_base_ = './faster_rcnn_het_vgg16.py'

model = dict(
    neck=dict(conv_cfg=dict(type='HetConv', p=4)),
    rpn_head=dict(type='HetRPNHead', conv_cfg=dict(type='HetConv', p=4)),
)
