"""Compile the Triton kernel for GPUs, on a machine that needs none.

Prints a JSON object per compiled variant: what was asked for, the bytes of
shared memory, and the instructions that multiply. In a process of its own:
where Triton interprets, it cannot compile.
"""

import json

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmdet_hetconv.kernels.triton.kernel import het_conv_kernel, tuned_kernel

AMPERE, HOPPER = 80, 90


def compile_variant(
    capability: int, dtype: str, config: triton.Config, channels: int, p: int, extras: bool
) -> dict:
    """One variant of a 3 x 3 layer; extras: bias and residual."""
    constants = dict(
        channels=channels,
        filters=channels,
        block_channels=channels // p,
        block_filters=channels // p,
        **dict(KH=3, KW=3, STRIDE_H=1, STRIDE_W=1, PAD_H=1, PAD_W=1),
        **dict(DILATION_H=1, DILATION_W=1, RELU=True, PRECISION='tf32'),
        **dict(HAS_BIAS=extras, HAS_RESIDUAL=extras),
        **config.kwargs,
    )
    if not extras:
        constants |= dict(bias_at=None, residual_at=None)
    names = het_conv_kernel.arg_names
    signature, aligned = {}, {}
    for place, name in enumerate(names):
        if name in constants:
            signature[name] = 'constexpr'
        elif name.endswith('_at'):
            signature[name] = f'*{dtype}'
            aligned[(place,)] = [['tt.divisibility', 16]]
        else:
            signature[name] = 'i32'
    values = {(names.index(key),): value for key, value in constants.items()}
    source = ASTSource(het_conv_kernel, signature, values, aligned)
    compiled = triton.compile(
        source,
        target=GPUTarget('cuda', capability, 32),
        options=dict(num_warps=config.num_warps, num_stages=config.num_stages),
    )
    text = compiled.asm['ptx']
    kinds = ('wgmma.mma_async', 'mma.sync', 'fma.rn.f32')
    return dict(
        capability=capability,
        dtype=dtype,
        channels=channels,
        p=p,
        extras=extras,
        tile=list(config.kwargs.values()),
        shared=compiled.metadata.shared,
        multiplies=next(kind for kind in kinds if kind in text),
        binary=len(compiled.asm['cubin']),
    )


def main() -> None:
    configs = tuned_kernel.configs
    variants = [(HOPPER, 'bf16', config, 256, 4, True) for config in configs]
    for dtype in ('bf16', 'fp16', 'fp32'):
        variants += [
            (AMPERE, dtype, configs[2], 256, 4, True),
            (HOPPER, dtype, configs[-1], 64, 8, False),  # blocks of 8
        ]
    for variant in variants:
        print(json.dumps(compile_variant(*variant)), flush=True)


if __name__ == '__main__':
    main()
