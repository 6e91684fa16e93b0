# Mask R-CNN R50-FPN on COCO; HetConv in backbone, neck, RPN and mask head.
_base_ = './mask_rcnn_het_r50.py'

model = dict(
    neck=dict(conv_cfg=dict(type='HetConv', p=4)),
    rpn_head=dict(type='HetRPNHead', conv_cfg=dict(type='HetConv', p=4)),
    roi_head=dict(mask_head=dict(conv_cfg=dict(type='HetConv', p=4))),
)
