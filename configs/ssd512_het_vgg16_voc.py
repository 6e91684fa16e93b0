# SSD512 VGG-16 on VOC07+12; HetConv in the backbone.
_base_ = 'mmdet::pascal_voc/ssd512_voc0712.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

# HetSSDHead, dense here, can predict; mmdet 3.3's SSDHead cannot (#11063).
model = dict(
    backbone=dict(type='HetSSDVGG', conv_cfg=dict(type='HetConv', p=4)),
    bbox_head=dict(type='HetSSDHead', conv_cfg=None),
)
