# Faster R-CNN R50-FPN on COCO; group-wise + 1x1 in the backbone.
_base_ = './faster_rcnn_het_r50_scratch.py'

# No dense weights stand in for these: every layer has to be trained.
model = dict(backbone=dict(conv_cfg=dict(_delete_=True, type='GroupPointwiseConv', conv_groups=4)))
