# Faster R-CNN MobileNet-FPN on COCO, from scratch; HetConv backbone.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

# Each depth-wise + point-wise pair is one HetConv, so that no pre-trained
# MobileNet fits.
model = dict(
    backbone=dict(_delete_=True, type='HetMobileNet', conv_cfg=dict(type='HetConv', p=64)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
