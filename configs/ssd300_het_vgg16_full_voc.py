# SSD300 VGG-16 on VOC07+12; HetConv in backbone, neck and head.
_base_ = './ssd300_het_vgg16_voc.py'

model = dict(
    neck=dict(conv_cfg=dict(type='HetConv', p=4)),
    bbox_head=dict(conv_cfg=dict(_delete_=True, type='HetConv', p=4)),
)
