"""Quantization of a deployed detector on images, and its entry in a checkpoint."""

from collections.abc import Collection
from typing import Any

from mmengine.config import Config
from torch import nn

from ..deploy.quantization import quantize
from ..kernels import planned_convs
from ..kernels.weights import Int8, Levels
from ..utils.announce import announce
from ..utils.errors import UserError
from .calibration_images import ImageBatches
from .evaluation import evaluate, has_annotations, metrics_table


def quantize_on_images(
    model: nn.Module,
    cfg: Config,
    batches: ImageBatches,
    keep: Collection[str] = (),
    evaluates: bool = False,
) -> dict[str, dict[str, Any] | None]:
    """Switch a deployed detector to int8; prints a report.

    Args:
        evaluates: on the config's test set too, before and after, if it has
            annotations.

    Returns:
        dict: what a checkpoint holds of it, by layer; see :func:`levels_of`.

    Raises:
        UserError: the images give other than finite numbers; a name in
            ``keep`` fits no layer.
    """
    metrics = {}
    evaluates = evaluates and has_annotations(cfg)
    if evaluates:
        # Where the processor has it, what is not quantized computes in bf16.
        mixed = any(conv.compute_dtype for conv in planned_convs(model))
        metrics['bf16' if mixed else 'fp32'] = evaluate(cfg, model)
    try:
        report = quantize(
            *(model, batches, lambda model, batch: model.test_step(batch)),
            keep=keep,
            show_progress=True,
        )
    except ValueError as error:
        raise UserError(f'--precision int8: {error}') from error
    announce(str(report))
    if evaluates:
        metrics['int8'] = evaluate(cfg, model)
        announce(metrics_table(metrics))
    return {name: int8 and _plain(int8) for name, int8 in report.int8.items()}


def _plain(int8: Int8) -> dict[str, list[float] | None]:
    return dict(input=list(int8.input), output=int8.output and list(int8.output))


def levels_of(stored: dict[str, dict[str, Any] | None]) -> dict[str, Int8 | None]:
    """Read the levels of each layer from a checkpoint's entry."""
    found: dict[str, Int8 | None] = {}
    for name, levels in stored.items():
        if levels is None:
            found[name] = None
            continue
        output = levels['output']
        found[name] = Int8(Levels(*levels['input']), output and Levels(*output))
    return found
