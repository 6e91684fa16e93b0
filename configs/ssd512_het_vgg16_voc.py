# SSD512 VGG-16 on VOC07+12; HetConv in the backbone.
_base_ = 'mmdet::pascal_voc/ssd512_voc0712.py'

custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)

model = dict(
    backbone=dict(type='HetSSDVGG', conv_cfg=dict(type='HetConv', p=4))
)
