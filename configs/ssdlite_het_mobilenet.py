# SSDLite-style detector on COCO, from scratch; HetConv in the backbone.
_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='HetMobileNet',
        conv_cfg=dict(type='HetConv', p=64),
        out_indices=(3, 4),
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.03),
        act_cfg=dict(type='ReLU6'),
    ),
    neck=dict(in_channels=(512, 1024), out_channels=(512, 1024, 512, 256, 256, 128)),
    # Dense here; it can predict, mmdet 3.3's SSDHead cannot (#11063).
    bbox_head=dict(type='HetSSDHead', conv_cfg=None, in_channels=(512, 1024, 512, 256, 256, 128)),
)
