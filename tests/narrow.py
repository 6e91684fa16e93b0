"""Stock detectors of few channels, which show the same in a fraction of the time."""

from mmengine.config import Config, ConfigDict

WIDTHS = (
    *('in_channels', 'out_channels', 'feat_channels', 'fc_out_channels', 'conv_out_channels'),
    'point_feat_channels',
)


def stock(name: str, **backbone) -> ConfigDict:
    """The model of a config of mmdet without pre-trained weights, a quarter as wide."""
    model = Config.fromstring(f"_base_ = 'mmdet::{name}.py'", '.py').model
    model.backbone.update(init_cfg=None, **backbone)
    return narrow(model)


def narrow(model: ConfigDict, by: int = 4) -> ConfigDict:
    """Divide the channels of a model's config, in place, where it has an mmdet ResNet."""
    model.backbone.base_channels = 64 // by
    for key in ('neck', 'rpn_head', 'bbox_head', 'roi_head'):
        _divide(model.get(key), by)
    return model


def _divide(value, by: int) -> None:
    if isinstance(value, list | tuple):
        for item in value:
            _divide(item, by)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in WIDTHS:
                value[key] = [n // by for n in item] if isinstance(item, list) else item // by
            else:
                _divide(item, by)
