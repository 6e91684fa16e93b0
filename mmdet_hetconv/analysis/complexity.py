"""MACs and parameters of a detector, layer by layer, in closed form.

Convolutions, linear layers and transposed convolutions are counted, from the
sizes that a forward pass shows. It runs on the meta device: shapes without
numbers, so that a detector at full size takes no time and no memory.

A head on regions of interest is counted for as many regions as it is
configured for: test_cfg.rpn.max_per_img boxes, test_cfg.rcnn.max_per_img
masks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmdet_hetconv.layers.cost import CONVOLUTIONS, dense_macs_per_pixel, macs_per_pixel
from mmdet_hetconv.layers.hetconv import HetConv2d
from mmdet_hetconv.layers.replace import count_parameters, find_convs
from mmdet_hetconv.trace import hooked
from mmdet_hetconv.utils.image_channels import image_channels

# Parts of a detector by the name of its attribute.
COMPONENTS = dict(
    backbone='backbone',
    neck='neck',
    rpn_head='dense head',
    bbox_head='dense head',
    roi_head='RoI head',
)


@dataclass
class LayerCost:
    """One layer's cost in a forward pass of one image.

    Attributes:
        name: its name in the model.
        layer: the layer.
        dense_macs: MACs of the standard convolution in its place.
        macs: exact MACs, the definition's.
        executed_macs: MACs of the F.conv2d calls that are made.
        calls: how often it ran; a head's layers run once per level.
    """

    name: str
    layer: nn.Module
    dense_macs: int = 0
    macs: int = 0
    executed_macs: int = 0
    calls: int = 0

    @property
    def component(self) -> str:
        return COMPONENTS.get(self.name.split('.')[0], 'other')

    @property
    def parameters(self) -> int:
        return count_parameters(self.layer)

    @property
    def dense_parameters(self) -> int:
        """Of the standard convolution in its place."""
        if isinstance(self.layer, CONVOLUTIONS):
            bias = any(n.endswith('bias') for n in names(self.layer))
            filters = self.layer.out_channels if bias else 0
            return dense_macs_per_pixel(self.layer) + filters
        return self.parameters

    def add_call(self, x: Tensor, output: Tensor) -> None:
        """Count one call of the layer."""
        self.calls += 1
        if isinstance(self.layer, CONVOLUTIONS):
            pixels = output.numel() // self.layer.out_channels
            self.dense_macs += pixels * dense_macs_per_pixel(self.layer)
            self.macs += pixels * macs_per_pixel(self.layer)
            self.executed_macs += pixels * macs_per_pixel(self.layer, True)
            return
        if isinstance(self.layer, nn.Linear):
            vectors = output.numel() // self.layer.out_features
        else:  # transposed: every input pixel meets every weight
            vectors = x.numel() // self.layer.in_channels
        macs = vectors * self.layer.weight.numel()
        self.dense_macs += macs
        self.macs += macs
        self.executed_macs += macs


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


@dataclass
class Complexity:
    """Cost of a detector at one size of image.

    Attributes:
        shape: height and width of the image, pixels.
        layers: the layers that are counted.
        other_parameters: of everything else, such as norms, by component.
        regions: how many regions each head of the RoI head was counted for.
        uncounted: names of layers whose cost is not known or that did not
            run.
    """

    shape: tuple[int, int]
    layers: list[LayerCost]
    other_parameters: dict[str, int] = field(default_factory=dict)
    regions: dict[str, int] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)

    def components(self) -> list[str]:
        """Parts that the detector has, in the order of the data."""
        there = {layer.component for layer in self.layers} | set(self.other_parameters)
        order = [*dict.fromkeys(COMPONENTS.values()), 'other']
        return [part for part in order if part in there]

    def total(self, what: str, parts: Iterable[str] | None = None) -> int:
        """Sum over the layers of some components, all of them by default.

        Args:
            what (str): 'dense_macs', 'macs', 'executed_macs', 'parameters'
                or 'dense_parameters'.
            parts (Iterable[str], optional): of :meth:`components`.
        """
        parts = set(self.components() if parts is None else parts)
        total = sum(getattr(layer, what) for layer in self.layers if layer.component in parts)
        if what.endswith('parameters'):
            total += sum(n for p, n in self.other_parameters.items() if p in parts)
        return total

    def heterogeneous(self, part: str) -> int:
        """Number of HetConv layers in a component."""
        return sum(
            isinstance(layer.layer, HetConv2d) and layer.component == part for layer in self.layers
        )


def _countable(model: nn.Module) -> dict[str, nn.Module]:
    """Layers with a closed form, by name, without the parts of one."""
    layers = find_convs(model)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.ConvTranspose2d)):
            layers[name] = module
    return layers


def _as_list(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _region_heads(roi_head: nn.Module, test_cfg: dict) -> Iterator[tuple]:
    """(name, head, extractor of its regions, number of regions)."""
    numbers = dict(bbox=test_cfg['rpn']['max_per_img'], mask=test_cfg['rcnn']['max_per_img'])
    for kind, number in numbers.items():
        if getattr(roi_head, f'with_{kind}', False):
            heads = _as_list(getattr(roi_head, f'{kind}_head'))
            extractors = _as_list(getattr(roi_head, f'{kind}_roi_extractor'))
            for head, extractor in zip(heads, extractors):
                yield kind, head, extractor, number


def _forward(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Run every component once; returns the regions counted, by kind of head."""
    feats = model.backbone(image)
    if getattr(model, 'with_neck', False):
        feats = model.neck(feats)
    if getattr(model, 'with_rpn', False):
        model.rpn_head(feats)
    elif getattr(model, 'bbox_head', None) is not None:
        model.bbox_head(feats)
    regions = {}
    if getattr(model, 'with_roi_head', False):
        for kind, head, extractor, number in _region_heads(model.roi_head, model.test_cfg):
            size = extractor.roi_layers[0].output_size
            roi = image.new_zeros(number, extractor.out_channels, *size)
            if getattr(model.roi_head, 'with_shared_head', False):
                roi = model.roi_head.shared_head(roi)
            head(roi)
            regions[kind] = number
    return regions


@torch.no_grad()
def count_complexity(model: nn.Module, shape: tuple[int, int], device: str = 'meta') -> Complexity:
    """Count the MACs and parameters of a detector, or of a backbone.

    The model is left on `device` and in eval mode: its weights are lost on
    the meta device.

    Args:
        model (nn.Module): a detector of mmdet with a backbone and, where it
            has them, a neck, an rpn_head or bbox_head and a roi_head; or a
            module that takes an image, counted as the component 'other'.
        shape (tuple[int, int]): height and width of the image, pixels.
        device (str): where to run; 'cpu' for operations that the meta device
            lacks. Defaults to 'meta'.
    """
    if device == 'meta':
        model.to('meta')
    elif next(model.parameters()).is_meta:
        model.to_empty(device=device)
    model.eval()
    costs = [LayerCost(n, layer) for n, layer in _countable(model).items()]
    image = torch.zeros(1, image_channels(model), *shape, device=device)
    by_name = {cost.name: cost for cost in costs}
    layers = {cost.name: cost.layer for cost in costs}
    with hooked(layers, after=lambda name, x, y: by_name[name].add_call(x, y)):
        if hasattr(model, 'backbone'):
            regions = _forward(model, image)
        else:
            model(image)
            regions = {}

    counted = {id(p) for cost in costs for p in cost.layer.parameters()}
    result = Complexity(shape, costs, regions=regions)
    for name, parameter in model.named_parameters():
        if id(parameter) not in counted:
            part = COMPONENTS.get(name.split('.')[0], 'other')
            others = result.other_parameters
            others[part] = others.get(part, 0) + parameter.numel()
            if parameter.ndim > 1:
                result.uncounted.append(name.rpartition('.')[0])
    result.uncounted += [cost.name for cost in costs if not cost.calls]
    return result
