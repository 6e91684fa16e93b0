# Faster R-CNN R50-FPN on VOC07+12; HetConv in the backbone's 3x3 convolutions.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

# Stage 1, frozen in the stock config, has projected weights: it has to train.
model = dict(backbone=dict(conv_cfg=dict(type='HetConv', p=4), frozen_stages=0))
