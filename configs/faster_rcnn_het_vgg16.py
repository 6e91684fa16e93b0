# Faster R-CNN VGG-16-FPN on COCO; HetConv in the backbone.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', './_base_/vgg16_fpn.py']

model = dict(
    data_preprocessor={{_base_.vgg16_data_preprocessor}},
    backbone={{_base_.vgg16_backbone}},
    neck=dict(in_channels=[128, 256, 512, 512]),
)
# VGG has no batch norm to keep the first steps in bounds.
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
