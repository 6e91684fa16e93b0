# Faster R-CNN R18-FPN on VOC07+12; HetConv in backbone, neck and RPN.
_base_ = './faster_rcnn_het_r18_voc.py'

model = dict(
    neck=dict(conv_cfg=dict(type='HetConv', p=4)),
    rpn_head=dict(type='HetRPNHead', conv_cfg=dict(type='HetConv', p=4)),
)
