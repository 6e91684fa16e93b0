# Faster R-CNN R50-FPN on COCO without pre-trained weights.
_base_ = './faster_rcnn_het_r50.py'

model = dict(backbone=dict(frozen_stages=-1, norm_eval=False, init_cfg=None))
