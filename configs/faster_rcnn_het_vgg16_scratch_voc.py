# Faster R-CNN VGG-16-FPN on VOC07+12 without pre-trained weights.
_base_ = './faster_rcnn_het_vgg16_voc.py'

# With batch norm: VGG-16 does not train from scratch without.
model = dict(backbone=dict(with_bn=True, norm_eval=False, init_cfg=None))
