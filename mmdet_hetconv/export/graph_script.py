"""The script that runs an end-to-end graph without torch and mmdet."""

from collections.abc import Sequence

# mmcv's names for what cv2.imread is asked for.
FLAGS = dict(
    color='cv2.IMREAD_COLOR',
    grayscale='cv2.IMREAD_GRAYSCALE',
    unchanged='cv2.IMREAD_UNCHANGED',
    color_ignore_orientation='cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR',
)
TEMPLATE = '''#!/usr/bin/env python
"""Detections of {name} in an image: python {script} IMAGE [openvino]"""

import sys
from pathlib import Path

import cv2

GRAPH = Path(__file__).with_name({name!r})
CLASSES = {classes!r}
LOWEST = 0.3  # score that is printed

image = cv2.imread(sys.argv[1], {flag})
if image is None:
    sys.exit(f'{{sys.argv[1]}} is no image')
image = image.reshape(*image.shape[:2], -1)
if 'openvino' in sys.argv[2:]:
    import openvino

    model = openvino.compile_model(GRAPH, 'CPU', {{'INFERENCE_PRECISION_HINT': 'f32'}})
    outputs = list(model(image).values())
else:
    import onnxruntime

    outputs = onnxruntime.InferenceSession(GRAPH).run(None, {{'image': image}})
for box, score, label in zip(*outputs):
    if score >= LOWEST:
        print(CLASSES[label], f'{{score:.3f}}', *(f'{{side:.1f}}' for side in box))
'''


def script_of(name: str, script: str, classes: Sequence[str], color_type: str) -> str:
    """A Python script that prints class, score and box, one detection a line.

    Args:
        name, script: of the graph and of the script, in one folder.
        color_type: how mmcv reads an image file.
    """
    return TEMPLATE.format(name=name, script=script, classes=list(classes), flag=FLAGS[color_type])
