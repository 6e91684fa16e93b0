# VGG-16 as the backbone of an FPN, with the weights SSD starts from.
custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

vgg16_data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[1, 1, 1], bgr_to_rgb=True)
vgg16_backbone = dict(
    _delete_=True,
    type='HetVGG',
    depth=16,
    out_indices=(1, 2, 3, 4),
    conv_cfg=dict(type='HetConv', p=4),
    init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe'),
)
