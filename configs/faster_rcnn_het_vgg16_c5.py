# Faster R-CNN VGG-16, one map of stride 16, COCO; HetConv backbone and RPN.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='HetVGG',
        depth=16,
        out_indices=(4,),
        with_last_pool=False,
        conv_cfg=dict(type='HetConv', p=4),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe'),
    ),
    rpn_head=dict(
        type='HetRPNHead', in_channels=512, feat_channels=512, conv_cfg=dict(type='HetConv', p=4)
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=512),
        bbox_head=dict(in_channels=512, fc_out_channels=4096),
    ),
)
