# Faster R-CNN R50-FPN on COCO; HetConv in the backbone's 3x3 convolutions.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

# Stage 1, frozen in the stock config, has projected weights: it has to train.
model = dict(backbone=dict(conv_cfg=dict(type='HetConv', p=4), frozen_stages=0))
