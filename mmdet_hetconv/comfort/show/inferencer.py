"""mmdet's DetInferencer behind this project's checks."""

from collections.abc import Sequence

import numpy as np
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from torch import nn

from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.image_channels import image_channels
from ...workflow import deployment
from ...workflow.checkpoints import checkpoint
from ...workflow.config import configs, preflight
from ...workflow.config.config_parts import class_counts, leaf_datasets, type_name
from ..data.own_data import palette
from .plates import PlateVisualizer
from .reading import Reading, as_bgr


class HetInferencer(DetInferencer):
    """A detector of a config with the weights of a checkpoint.

    The checkpoint is read without running anything in it, and has to fit the
    config. What it was trained on says how many classes there are, so that a
    checkpoint of ``tools/train.py --data-root`` needs no other config.

    Args:
        config (str | Config): config file, or what was read of one.
        weights (str): checkpoint file, trained or deployed.
        deploy (bool): detect with the inference form.
        options (dict, optional): of ``--cfg-options``.

    Attributes:
        reading (Reading): what it makes of image files.
        form (str): trained or inference form, and its precision.
        weights (str): the checkpoint file.

    Raises:
        UserError: a mistake in one of them.
    """

    def __init__(
        self, config: str | Config, weights: str, deploy: bool = False, options: dict | None = None
    ):
        register_all_modules(init_default_scope=True)
        cfg = configs.read_config(config)
        configs.merge_options(cfg, options)
        if not cfg.get('test_dataloader'):
            raise UserError(f'config {cfg.filename} has no test_dataloader')
        # Pictures are handed back, not kept.
        cfg.setdefault('visualizer', dict(type='DetLocalVisualizer'))
        if type_name(cfg.visualizer) == 'DetLocalVisualizer':
            cfg.visualizer.type = PlateVisualizer.__name__
        cfg.visualizer.vis_backends = None
        self._deploy = deploy
        self.weights = weights
        color_type = _color_type(cfg)  # mmdet overwrites the loader's type
        # The model is moved before it is switched: a plan is of one device.
        super().__init__(cfg, weights, get_device(), show_progress=False)
        self.reading = Reading(color_type, image_channels(self.model))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        return tuple(self.model.dataset_meta['classes'])

    def detect(self, images: Sequence[np.ndarray]) -> list[DetDataSample]:
        """Detections on the CPU, one sample for each image.

        Args:
            images (Sequence[np.ndarray]): as `reading` makes them, of any
                sizes; one batch.
        """
        return [sample.cpu() for sample in self.forward(self.collate(images))]

    def collate(self, images: Sequence[np.ndarray]) -> dict:
        """One batch through the test pipeline."""
        ((_, batch),) = self.preprocess(images, batch_size=len(images))
        return batch

    def draw(self, image: np.ndarray, sample: DetDataSample, score_thr: float) -> np.ndarray:
        """The image with boxes, and masks, above a score.

        Args:
            image (np.ndarray): as for :meth:`detect`; the result is BGR,
                without a fourth channel.
        """
        self.visualizer.add_datasample(
            'detections', as_bgr(image)[..., ::-1], sample, draw_gt=False, pred_score_thr=score_thr
        )
        return self.visualizer.get_image()[..., ::-1]

    def _init_model(self, cfg: Config, weights: str, device: str) -> nn.Module:
        content = checkpoint.read_checkpoint(weights)
        dataset_meta = _set_classes(cfg, content, weights)
        with preflight.explained_build(cfg):
            model = MODELS.build(cfg.model)
        preflight.check_model(model, cfg)
        model.to(device).eval()
        self.form = deployment.form_of(content, self._deploy)
        if self._deploy:
            model = deployment.deploy_model(model, content, weights)
        else:
            deployment.check_not_deployed(content, weights)
            checkpoint.load_weights(model, content, weights)
        model.cfg = cfg
        self._load_weights_to_model(
            model, dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dataset_meta)), cfg
        )
        if self._deploy:
            deployment.serve_stored_graph(model, content, weights)
        return model


def _color_type(cfg: Config) -> str:
    """How a config's test pipeline reads image files."""
    _, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, ''))
    for step in leaf.get('pipeline') or ():
        if type_name(step) == 'LoadImageFromFile':
            return step.get('color_type', 'color')
    return 'color'


def _set_classes(cfg: Config, content: dict, weights: str) -> dict:
    """Point a config at the classes of a checkpoint, else at its own.

    Returns:
        dict: classes and palette.

    Raises:
        UserError: neither names classes; the config's are not as many as its
            model has.
    """
    key, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'))
    trained = configs.trained_meta(content)
    classes = configs.classes_of(cfg, content, weights)
    for path, part in class_counts(cfg.model):
        if part['num_classes'] == len(classes):
            continue
        if 'classes' not in trained:
            raise UserError(
                f'{path}.num_classes={part["num_classes"]}, but {key} has {len(classes)} classes'
            )
        announce(
            f'{path}.num_classes={len(classes)}, not {part["num_classes"]}: '
            f'checkpoint {weights} was trained on so many classes'
        )
        part['num_classes'] = len(classes)
    metainfo = dict(classes=classes, palette=_palette(trained, leaf, len(classes)))
    cfg.test_dataloader.dataset = ConfigDict({**leaf, 'metainfo': metainfo})
    return metainfo


def _palette(trained: dict, dataset: dict, count: int):
    """A colour for each class."""
    for metainfo in (trained, dataset.get('metainfo') or {}):
        known = metainfo.get('palette')
        if isinstance(known, list | tuple) and len(known) >= count:
            return known
    return palette(count)
