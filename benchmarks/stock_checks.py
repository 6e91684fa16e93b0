"""What a stock detector has to do, dense and switched: see stock_configs.py."""

import copy
import io
import math

import numpy as np
import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmdet.models.necks.ssd_neck import L2Norm
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.deploy.precision import set_precision
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.layers import HetConv2d

# Of raw outputs, over the largest value; in fp32 what another order of sums makes.
MOST_ERROR = 1e-3
MOST_ERRORS = dict(fp32=MOST_ERROR, bf16=0.1, int8=0.35)


def random_batch(size: tuple[int, int], num_classes: int = 1, images: int = 2) -> dict:
    """Images with two objects each, as a data loader gives them.

    Args:
        size: height and width, pixels.
        num_classes: labels are 0 and num_classes - 1.
        images: two, since batch norm cannot train on one 1 x 1 map.
    """
    shape = (3, *size)
    pixels = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(images)]
    samples = [random_sample(size, num_classes) for _ in range(images)]
    return dict(inputs=pixels, data_samples=samples)


def random_sample(size: tuple[int, int], num_classes: int) -> DetDataSample:
    """The annotations of one image."""
    height, width = size
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.4, 0.1, 0.9, 0.9]])
    boxes = boxes * torch.tensor([width, height, width, height])
    masks = np.zeros((2, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([0, num_classes - 1]),
        masks=BitmapMasks(masks, height, width),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.long))
    return sample


def losses(model: nn.Module, batch: dict) -> torch.Tensor:
    """Sum of a detector's losses in training."""
    model.train()
    data = model.data_preprocessor(batch, True)
    parts = model.loss(data['inputs'], data['data_samples'])
    return model.parse_losses(parts)[0]


def first_image(model: nn.Module, batch: dict) -> dict:
    """What the model computes on in eval mode, which this switches on.

    One image, as the masked convolutions of guided anchoring ask for.
    """
    model.eval()
    one = {key: values[:1] for key, values in batch.items()}
    return model.data_preprocessor(one, False)


def predict(model: nn.Module, batch: dict) -> DetDataSample:
    """The first image's predictions, of whatever kind.

    Raises:
        AssertionError: there are none.
    """
    data = first_image(model, batch)
    with torch.no_grad():
        sample = model.predict(data['inputs'], data['data_samples'])[0]
    found = list(sample.keys())
    if not any(key.startswith('pred_') for key in found):
        raise AssertionError(f'no prediction in {found}')
    return sample


def features(model: nn.Module, batch: dict) -> list[torch.Tensor]:
    """Every feature map that the heads get."""
    data = first_image(model, batch)
    with torch.no_grad():
        maps = model.extract_feat(data['inputs'])
    return list(maps)


def with_gradient(model: nn.Module, batch: dict) -> set[str]:
    """Names of the parameters that get a gradient from the losses."""
    model.zero_grad()
    losses(model, batch).backward()
    return {n for n, p in model.named_parameters() if p.grad is not None}


def het_layers(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, HetConv2d)]


def shake_norms(model: nn.Module) -> None:
    """Give batch norms statistics that are not the initial ones.

    And L2 norms their scale: mmdet builds them with uninitialised weights.
    """
    for module in model.modules():
        if isinstance(module, L2Norm):
            nn.init.constant_(module.weight, module.scale)
        if getattr(module, 'running_mean', None) is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def draw_zeros(model: nn.Module) -> None:
    """Draw what is zero as built, and so would hide a fault behind it.

    Those are the offsets of deformable convolutions, among others.
    """
    for module in model.modules():
        weight = getattr(module, 'weight', None)
        if isinstance(module, nn.Conv2d | nn.Linear) and not weight.any():
            nn.init.normal_(weight, std=0.05)


def raw_outputs(model: nn.Module, batch: dict) -> list[torch.Tensor]:
    """Feature maps and what the heads make of them, before any ranking."""
    data = first_image(model, batch)
    inputs, samples = data['inputs'], data['data_samples']
    with torch.no_grad():
        maps = model.extract_feat(inputs)
        if not hasattr(model, 'roi_head'):
            return tensors_in([maps, model._forward(inputs, samples)])
        outputs = [maps]
        # CascadeRPNHead predicts only.
        if model.with_rpn and type(model.rpn_head).__name__ != 'CascadeRPNHead':
            outputs.append(model.rpn_head(maps))
        proposals = [proposals_for(sample) for sample in samples]
        # Queries and proposals of their own, in Sparse R-CNN.
        if type(model.rpn_head).__name__ == 'EmbeddingRPNHead':
            proposals = model.rpn_head.predict(maps, samples)
        outputs.append(model.roi_head.forward(maps, proposals, samples))
    return tensors_in(outputs)


def proposals_for(sample: DetDataSample) -> InstanceData:
    """Two regions of fixed places, so that no ranking depends on rounding."""
    height, width = sample.img_shape[:2]
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.3, 0.1, 0.9, 0.9]])
    return InstanceData(
        bboxes=boxes * torch.tensor([width, height, width, height]),
        scores=torch.ones(2),
        labels=torch.zeros(2, dtype=torch.long),
    )


def tensors_in(value) -> list[torch.Tensor]:
    """All tensors of numbers in tuples, lists, dicts and instances."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, InstanceData):
        value = dict(value.items())
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two outputs, over the largest value.

    One value in a thousand is left out: SOLO keeps what is the largest among
    its neighbours, and a few change places by mere rounding. Random weights
    may overflow, in both then.
    """
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not finite.any():
        return math.inf
    differences = torch.where(finite, a - b, 0.0).abs().flatten()
    kept = math.ceil(0.999 * len(differences))
    largest = a[finite].abs().max().clamp(min=1e-6)
    return (differences.kthvalue(kept).values / largest).item()


def relative_error(model: nn.Module, other: nn.Module, batch: dict) -> float:
    """The largest difference of any raw output."""
    pairs = zip(raw_outputs(model, batch), raw_outputs(other, batch), strict=True)
    return max(difference(a, b) for a, b in pairs if a.numel())


def deployed_form(model: nn.Module, batch: dict, precision: str) -> nn.Module:
    """The inference form, in bf16 also on CPUs that do not have it, where it is slow."""
    # Untimed: this is about numbers, not about seconds.
    plan = Plan(frozen=True)
    if precision == 'bf16':
        model = switch_to_deploy(model, plan)
        set_precision(model, precision)
        return model
    images = first_image(model, batch)['inputs']
    return switch_to_deploy(model, plan, precision=precision, calibration=[images])


def check_deployed(
    model_cfg: dict, state: dict, batch: dict, precision: str = 'fp32'
) -> tuple[int, float]:
    """The inference form's planned layers, and how far it is from the model.

    Raises:
        AssertionError: it is further than MOST_ERRORS allow.
    """
    model, deployed = build_detector(model_cfg), build_detector(model_cfg)
    for one in (model, deployed):
        one.load_state_dict(state)
    deployed = deployed_form(deployed, batch, precision)
    error = relative_error(model, deployed, batch)
    # Queries chosen by rank change places by mere rounding on some images, and so do
    # regions that are refined in stages. A fault would show on all of them.
    if getattr(model, 'as_two_stage', False) or not error < MOST_ERRORS[precision]:
        height, width = batch['inputs'][0].shape[1:]
        for _ in range(2):
            other = random_batch((height, width))
            error = min(error, relative_error(model, deployed, other))
    if not error < MOST_ERRORS[precision]:
        raise AssertionError(f'deployed in {precision}, outputs differ by {error:.1e}')
    predict(deployed, batch)
    return len(planned_convs(deployed)), error


def check_gradients(used: set[str], het: nn.Module, batch: dict) -> None:
    """Every parameter that the dense model uses, `het` uses."""
    used = set(used)
    reached = with_gradient(het, batch)
    for name in het_layers(het):
        if f'{name}.weight' in used:
            used.remove(f'{name}.weight')
            used |= {f'{name}.grouped.weight', f'{name}.pointwise.weight'}
        if f'{name}.bias' in used:
            used.remove(f'{name}.bias')
            used.add(f'{name}.grouped.bias')
    if used - reached:
        raise AssertionError(f'no gradient: {sorted(used - reached)[:3]}')


def check_round_trip(het: nn.Module, model_cfg: dict, batch: dict) -> None:
    """The same features from the state dict in a fresh model."""
    file = io.BytesIO()
    torch.save(het.state_dict(), file)
    file.seek(0)
    again = build_detector(model_cfg)
    again.load_state_dict(torch.load(file, weights_only=True))
    for a, b in zip(features(het, batch), features(again, batch)):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def check_fusion(het: nn.Module, batch: dict) -> None:
    """The same features, to rounding, with the batch norms folded."""
    before = features(het, batch)
    after = features(fuse_conv_bn(het), batch)
    for a, b in zip(before, after):
        error = difference(a, b)
        if not error < MOST_ERROR:
            raise AssertionError(f'fuse_conv_bn changes outputs by {error:.1e}')


def check(state: dict, used: set[str], switched: dict, batch: dict) -> tuple[int, dict]:
    """All checks of a switched model config that works dense.

    Args:
        state: the dense model's state dict.
        used: its parameters that get a gradient.

    Returns:
        The number of HetConv layers, and the state dict of that model.
    """
    het = build_detector(switched)
    het.load_state_dict(state)
    predict(het, batch)
    check_round_trip(het, switched, batch)
    # Before training: some heads add keys while they train.
    state = copy.deepcopy(het.state_dict())
    check_gradients(used, het, batch)
    fused = build_detector(switched)
    fused.load_state_dict(state)
    check_fusion(fused, batch)
    return len(het_layers(het)), state


def without_checkpoints(cfg):
    """The same config with no weights to download."""
    if isinstance(cfg, dict):
        kept = {k: v for k, v in cfg.items() if not _is_checkpoint(k, v)}
        return ConfigDict({k: without_checkpoints(v) for k, v in kept.items()})
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(map(without_checkpoints, cfg))
    return cfg


def _is_checkpoint(key: str, value) -> bool:
    if key == 'init_cfg':
        return isinstance(value, dict) and value.get('type') == 'Pretrained'
    return key in ('pretrained', 'teacher_ckpt')
