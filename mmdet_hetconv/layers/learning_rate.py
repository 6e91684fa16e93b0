"""A learning rate for each HetConv layer, divided by its density.

The density is the share of the dense layer's weights that the layer has,
1/p + (1 - 1/p) / (Kh Kw). A filter with fewer weights changes its output less
in a step of the same learning rate; at the rate over the density it changes
as much as the dense one, so that a schedule tuned for a dense network fits.

Source: Dey et al., "Sparse maximal update parameterization: A holistic
approach to sparse training dynamics", NeurIPS 2024 (arXiv 2405.15743).
"""

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from .cost import dense_macs_per_pixel, macs_per_pixel
from .hetconv import HetConv2d


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class HetConvOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, which divides the rate of HetConv weights by their density.

    At p=4 a 3 x 3 layer has a density of 1/3, hence three times the learning
    rate. Biases are left alone; paramwise_cfg is heeded, factors multiply.

    Raises:
        ValueError: the optimizer's config has no lr.

    Example:
        >>> optim_wrapper = dict(  # in a config
        ...     constructor='HetConvOptimWrapperConstructor')
    """

    # Of mmengine's class, which has no types.
    base_lr: float
    paramwise_cfg: dict[str, Any]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        if self.base_lr is None:
            raise ValueError(
                f'{type(self).__name__}: the optimizer {self.optimizer_cfg["type"]} is given no lr'
            )
        # Without any option mmengine makes one group of all parameters.
        self.paramwise_cfg = self.paramwise_cfg or dict(custom_keys={})
        self._factors: list[float] = []
        wrapper = super().__call__(model)
        factors = ', '.join(f'{f:g}' for f in sorted(set(self._factors)))
        print_log(
            f'learning rate of {len(self._factors)} HetConv layers: times {factors or "nothing"}',
            logger='current',
        )
        return wrapper

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        before = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        if isinstance(module, HetConv2d) and module.p > 1:
            factor = dense_macs_per_pixel(module) / macs_per_pixel(module)
            self._factors.append(factor)
            for group in params[before:]:
                if group['params'][0].dim() > 1:
                    group['lr'] = group.get('lr', self.base_lr) * factor
