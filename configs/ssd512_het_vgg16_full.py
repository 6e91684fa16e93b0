# SSD512 VGG-16 on COCO; HetConv in backbone, neck and head.
_base_ = './ssd512_het_vgg16.py'

model = dict(
    neck=dict(conv_cfg=dict(type='HetConv', p=4)),
    bbox_head=dict(conv_cfg=dict(_delete_=True, type='HetConv', p=4)),
)
