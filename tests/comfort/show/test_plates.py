"""Where names of detections are drawn."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_hetconv.comfort.show.plates import PlateVisualizer


def drawn(box: list[float], monkeypatch) -> tuple[np.ndarray, list[str]]:
    """A grey picture with one detection of a score of 0.8, and the texts in it."""
    visualizer = PlateVisualizer()
    visualizer.dataset_meta = dict(classes=('cat',), palette=[(255, 0, 0)])
    texts = []
    draw = visualizer.ax_save.text if hasattr(visualizer, 'ax_save') else None
    assert draw is not None
    monkeypatch.setattr(
        visualizer.ax_save, 'text', lambda *args, **kw: texts.append(args[2]) or draw(*args, **kw)
    )
    found = InstanceData(
        bboxes=torch.tensor([box]), scores=torch.tensor([0.8]), labels=torch.tensor([0])
    )
    image = np.full((120, 160, 3), 128, np.uint8)
    sample = DetDataSample(pred_instances=found)
    visualizer.add_datasample('a', image, sample, draw_gt=False)
    return visualizer.get_image(), texts


def test_a_small_object_is_seen(monkeypatch):
    image, texts = drawn([70, 60, 86, 76], monkeypatch)
    assert texts == ['cat 0.80']
    assert (image[66:72, 76:82] == 128).all()
    assert (image[40:57, 70:110] != 128).any()


def test_at_the_upper_edge_the_plate_stays_in_the_picture(monkeypatch):
    image, texts = drawn([70, 2, 130, 60], monkeypatch)
    assert texts == ['cat 0.80'] and (image[4:16, 74:110] < 60).any()
