"""mmdet's hook that draws detections, with a file for every image."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import HOOKS

from ...utils.errors import UserError
from ...workflow.config.config_parts import image_folder, leaf_datasets, type_name


@HOOKS.register_module()
class FolderVisualizationHook(DetVisualizationHook):
    """DetVisualizationHook that keeps the folders of the images.

    mmdet's writes a/1.jpg and b/1.jpg into one file.

    Args:
        image_root (str): the images' folder; what is below it is kept. Of an
            image elsewhere its whole path is.
        **kwargs: of DetVisualizationHook.
    """

    def __init__(self, *args, image_root: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.image_root = os.path.abspath(image_root)

    def after_test_iter(
        self, runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw each image into the folder of its own."""
        out_dir = self.test_out_dir
        for sample in outputs:
            if out_dir is not None:
                folder = self._folder_of(sample.img_path)
                self.test_out_dir = str(Path(out_dir) / folder)
            super().after_test_iter(runner, batch_idx, data_batch, [sample])
        self.test_out_dir = out_dir

    def _folder_of(self, image: str) -> PurePath:
        folder = Path(os.path.abspath(image)).parent
        if folder.is_relative_to(self.image_root):
            return folder.relative_to(self.image_root)
        return folder.relative_to(folder.anchor)


def check_draws(cfg: Config) -> None:
    """Raise UserError for a config without the hook that --show switches on."""
    if 'visualization' not in (cfg.get('default_hooks') or {}):
        raise UserError(
            '--show and --show-dir need default_hooks.visualization in the config, '
            "dict(type='DetVisualizationHook')"
        )


def draw_into_folders(cfg: Config) -> None:
    """Keep the images' folders, where a config has mmdet's own hook."""
    hook = cfg.default_hooks.visualization
    if type_name(hook) != 'DetVisualizationHook':
        return
    hook.type = FolderVisualizationHook.__name__
    leaves = leaf_datasets(cfg.test_dataloader.dataset, '')
    hook.image_root = os.path.commonpath(
        [os.path.abspath(image_folder(leaf)) for _, leaf in leaves]
    )
