"""ConvModules whose norm or activation became part of the convolution."""

from typing import Any

from mmcv.cnn import ConvModule

from .changes import Changes


def keep_whole(module: ConvModule, changes: Changes) -> None:
    """Refuse calls that leave out what can no longer be left out.

    ConvModule.forward takes ``activate=False`` and ``norm=False``. A norm that
    is folded, or a ReLU that is fused, would be there all the same.
    """
    if _refuse_parts not in module._forward_pre_hooks.values():
        changes.note(module.register_forward_pre_hook(_refuse_parts, with_kwargs=True))
    # It takes statistics from the norm, and leaves out the call.
    if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
        module.turn_on_efficient_conv_bn_eval(False)


def _refuse_parts(module: ConvModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    wanted = {**dict(zip(('activate', 'norm'), args[1:])), **kwargs}
    for name in ('activate', 'norm'):
        if not wanted.get(name, True):
            raise ValueError(
                f'ConvModule called with {name}=False in the inference form, '
                'where norm and activation are part of the convolution'
            )
