"""Measure MACs and parameters of every config, into configs/metafile.yml.

    python benchmarks/write_metafile.py

mAP is entered by hand where it was measured; this keeps it.
"""

from pathlib import Path

import yaml
from mmengine.config import Config

from mmdet_hetconv.analysis import count_config, input_shape

ROOT = Path(__file__).parents[1]
METAFILE = ROOT / 'configs' / 'metafile.yml'
HEAD = """\
# Written by benchmarks/write_metafile.py. MACs: multiply-adds for one image
# of Input Size (height, width), by definition of HetConv; dense: with
# standard convolutions in their places. The RoI head is counted for as many
# regions as test_cfg has. Results are there only where they were measured.
"""
COLLECTION = dict(
    Name='HetConv',
    Metadata=dict(Architecture=['HetConv']),
    Paper=dict(
        Title='HetConv: Beyond Homogeneous Convolution Kernels for Deep CNNs',
        URL='https://doi.org/10.1007/s11263-019-01264-3',
    ),
    README='README.md',
    Code=dict(URL='mmdet_hetconv/layers/hetconv.py'),
)


def zoo() -> list[Path]:
    paths = sorted((ROOT / 'configs').glob('*.py'))
    return [path for path in paths if not path.stem.startswith('demo')]


def measure(path: Path) -> dict:
    """The metadata of one config."""
    cfg = Config.fromfile(path)
    shape = input_shape(cfg)
    cost = count_config(cfg.model, shape)
    # A string: `mim search` takes no numbers in a list.
    data = {'Input Size': f'{shape[0]} x {shape[1]}'}
    data['MACs'] = cost.total('macs')
    data['MACs dense'] = cost.total('dense_macs')
    data['MACs executed'] = cost.total('executed_macs')
    data['Parameters'] = cost.total('parameters')
    data['Parameters dense'] = cost.total('dense_parameters')
    return data


def known_results() -> dict[str, list]:
    """Measured results, by config."""
    if not METAFILE.exists():
        return {}
    models = yaml.safe_load(METAFILE.read_text())['Models']
    return {m['Name']: m['Results'] for m in models if 'Results' in m}


def main():
    results, models = known_results(), []
    for path in zoo():
        model = dict(
            Name=path.stem,
            **{'In Collection': 'HetConv'},
            Config=path.relative_to(ROOT).as_posix(),
            Metadata=measure(path),
        )
        if path.stem in results:
            model['Results'] = results[path.stem]
        models.append(model)
        print(path.stem, model['Metadata'], flush=True)
    text = yaml.safe_dump(
        dict(Collections=[COLLECTION], Models=models),
        sort_keys=False,
        default_flow_style=None,
        width=79,
    )
    METAFILE.write_text(HEAD + text)


if __name__ == '__main__':
    main()
