"""Test-time augmentation."""

from copy import deepcopy

from mmengine.config import Config, ConfigDict

from ...workflow.config.config_parts import type_name


def augment(cfg: Config) -> None:
    """Augment the test images of a config; by flipping where it has no tta_pipeline."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        *steps, pack = deepcopy(dataset.pipeline)
        pack = deepcopy(pack)
        pack.meta_keys = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = annotated_last(cfg.tta_pipeline)


def annotated_last(pipeline: list[dict]) -> list[dict]:
    """A pipeline whose annotations are loaded behind the augmentation.

    The truth that is compared belongs to the original image: in front of it, as in
    mmdet's VOC configs, it would be flipped as the first copy is.
    """
    names = [type_name(step) for step in pipeline]
    if 'TestTimeAug' not in names:
        return pipeline
    at = names.index('TestTimeAug')
    loading = [step for step in pipeline[:at] if type_name(step) == 'LoadAnnotations']
    augment = deepcopy(pipeline[at])
    augment['transforms'][-1:-1] = [[step] for step in loading]
    others = [step for step in pipeline[:at] if step not in loading]
    return [*others, augment, *pipeline[at + 1 :]]
