# FCOS R50-FPN on COCO; HetConv in backbone, neck and head.
_base_ = './fcos_het_r50.py'

model = dict(
    neck=dict(conv_cfg=dict(type='HetConv', p=4)),
    bbox_head=dict(conv_cfg=dict(type='HetConv', p=4)),
)
