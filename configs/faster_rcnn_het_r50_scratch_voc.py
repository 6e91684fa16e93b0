# Faster R-CNN R50-FPN on VOC07+12 without pre-trained weights.
_base_ = './faster_rcnn_het_r50_voc.py'

model = dict(backbone=dict(frozen_stages=-1, norm_eval=False, init_cfg=None))
