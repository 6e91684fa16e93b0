"""Names and scores of detections, drawn above their boxes."""

import re
from typing import Any

from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from torch import Tensor

# mmdet writes scores in per cent behind the class.
_SCORE = re.compile(r': (\d+(?:\.\d+)?)$')


@VISUALIZERS.register_module()
class PlateVisualizer(DetLocalVisualizer):
    """mmdet's, whose plates lie inside of the boxes and hide small objects.

    Scores are written as elsewhere, 0.80 in place of 80.0.
    """

    def draw_texts(self, texts: Any, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(texts, str) and kwargs.get('horizontal_alignments') != 'center':
            texts = _SCORE.sub(lambda found: f' {float(found[1]) / 100:.2f}', texts)
            # Where there is room; at the upper edge a plate stays inside.
            height = 1.5 * kwargs.get('font_sizes', 13)
            if positions[1] > height:
                positions = positions - positions.new_tensor([0, 2 * self.line_width])
                kwargs['vertical_alignments'] = 'bottom'
        return super().draw_texts(texts, positions, *args, **kwargs)
