# Faster R-CNN R50-FPN on COCO; p by stage, the frozen one dense.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

model = dict(backbone=dict(type='HetResNet', p=(1, 4, 4, 8)))
