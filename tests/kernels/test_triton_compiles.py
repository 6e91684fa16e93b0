"""The Triton kernel compiles for GPUs; none is needed for that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')

ROOT = Path(__file__).parents[2]
# What one thread block may have, of the GPUs with this compute capability.
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}


def test_all_tiles_use_tensor_cores(tmp_path):
    environment = {**os.environ, 'TRITON_CACHE_DIR': str(tmp_path)}
    environment.pop('TRITON_INTERPRET', None)
    done = subprocess.run(
        [sys.executable, '-m', 'tests.kernels.compile_for_gpu'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    variants = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(variants) > 15
    assert {v['dtype'] for v in variants} == {'bf16', 'fp16', 'fp32'}
    assert min(v['channels'] // v['p'] for v in variants) == 8
    for variant in variants:
        cores = {80: 'mma.sync', 90: 'wgmma.mma_async'}
        capability = variant['capability']
        assert variant['multiplies'] == cores[capability], variant
        assert variant['shared'] <= SHARED_BYTES[capability], variant
        assert variant['binary'] > 1000, variant
