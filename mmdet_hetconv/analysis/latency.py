"""Seconds of whole detectors: dense against heterogeneous, in turns.

    efficiency = (t_dense / t_het) / (MACs_dense / MACs_het)

The dense detector has the same weights in dense convolutions, so both compute
the same function. Deployed means switch_to_deploy() for both: folded norms,
fused ReLUs, the fastest kernel and layout for every layer.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..convert import make_dense
from ..deploy import switch_to_deploy
from ..export.onnx import RawOutputs, export_onnx
from ..export.runtimes import BACKENDS, load_graph, quantize_graph
from ..kernels import Plan, first_run, planned_convs
from ..trace.examples import detect
from ..utils.image_channels import image_channels
from ..utils.machine import machine
from ..utils.progress import progress_bar
from ..utils.table import write_rows
from ..utils.timing import times_in_turns
from .complexity import count_complexity
from .config import build_detector, input_shape
from .peak_memory import peak_memory

WARM_UP = 2


@dataclass
class Timing:
    """One detector in one form.

    Attributes:
        form: 'dense', 'het', 'dense deployed', 'het deployed', or another
            backend, 'dense openvino', but for fp32 with the precision behind
            it, 'het deployed bf16'.
        image: height and width, '800x1344'.
        whole: with decoding, NMS and RoI head.
        ms, p10, p90: milliseconds of a batch, the median first.
        images_per_s: by the median.
        gmacs: of one image, backbone, neck and dense head.
        weights_mb: parameters, buffers and prepared weights, MiB; 0 for
            another backend.
        peak_mb: memory beside them at the peak of a batch, MiB; 0 if the
            system does not tell.
        gain: time of the dense detector of the same form over this one's.
        efficiency: gain over the MACs' gain.
        gain_best: time of the fastest dense detector over this one's.
    """

    config: str
    form: str
    image: str
    whole: bool
    batch: int
    ms: float
    p10: float
    p90: float
    images_per_s: float
    gmacs: float
    weights_mb: float
    peak_mb: float
    gain: float = 1.0
    efficiency: float = 1.0
    gain_best: float = 1.0


HEAD = tuple(field.name for field in fields(Timing))


def benchmark_config(
    cfg,
    batch: int,
    shape: tuple[int, int] | None,
    rounds: int,
    device: str = 'cpu',
    whole: bool = False,
    budget_s: float = 600.0,
    precisions: Sequence[str] = ('fp32',),
    backends: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time the detector of a config in its forms, all in turns.

    Args:
        cfg (Config): of a detector with HetConv layers.
        batch (int): images at once.
        shape (tuple[int, int], optional): height and width; by default
            those of the config's test images.
        rounds (int): how often each form runs, in turns.
        device (str): 'cpu' or 'cuda'.
        whole (bool): decoding, NMS and RoI head too, else backbone, neck
            and dense head.
        budget_s (float): seconds each plan may take to time kernels.
        precisions (Sequence[str]): of the deployed forms; the levels of int8
            are those of one random image, which the time does not depend on.
        backends (Sequence[str]): others to be timed as well, of those in
            deploy/backends.py, in those of the precisions that they have.
        clock (Callable): seconds. time.thread_time, with one thread, is
            disturbed less by other programs than the clock on the wall.

    Raises:
        ValueError: the detector has no dense head, or shape is not known; a
            precision that the device does not have; a backend that
            cannot decode boxes.
    """
    if backends and whole:
        raise ValueError(f'{backends[0]} runs backbone, neck and dense head only')
    shape = shape or input_shape(cfg)
    torch.manual_seed(0)
    het = build_detector(cfg.model).to(device)
    het.eval()
    dense = make_dense(het)
    costs = count_complexity(build_detector(cfg.model), shape)
    parts = [part for part in costs.components() if part != 'RoI head']
    gmacs = dict(dense=costs.total('dense_macs', parts) / 1e9, het=costs.total('macs', parts) / 1e9)
    images = torch.randn(batch, image_channels(het), *shape, device=device)
    models = {'dense': dense, 'het': het}
    with progress_bar('Deploying forms', 2 * len(precisions)) as step:
        for precision in precisions:
            for kind in ('dense', 'het'):
                models[_form(f'{kind} deployed', precision)] = switch_to_deploy(
                    copy.deepcopy(models[kind]),
                    Plan(budget_s=budget_s, clock=clock),
                    precision=precision,
                    calibration=[images[:1]] if precision == 'int8' else (),
                )
                step()
    runs = {}
    for form, model in models.items():
        fast = images
        if 'deployed' in form:
            fast = images.contiguous(memory_format=torch.channels_last)
        runs[form] = _runner(model, fast, whole)
        with first_run(model, f'Timing kernels, {form}'):
            runs[form]()
    with TemporaryDirectory() as folder:
        for kind, model in (('dense', dense), ('het', het)) if backends else ():
            graph = Path(folder) / f'{kind}.onnx'
            export_onnx(switch_to_deploy(copy.deepcopy(model)), shape, graph)
            runs.update(_in_backends(kind, graph, images, backends, precisions))
        times, peaks = _measure(runs, rounds, device, clock)
    chosen = [f'{form} {names}' for form in models if (names := _choices(models[form]))]
    print_log(f'kernels by form: {"; ".join(chosen)}', 'current')
    fastest = min(median(times[form]) for form in times if form.startswith('dense'))
    timings = []
    for form, values in times.items():
        kind = form.split()[0]
        deciles = quantiles(values, n=10)
        ms = median(values)
        reference = median(times[form.replace('het', 'dense')])
        gain = reference / ms
        timings.append(
            Timing(
                Path(cfg.filename or 'config').stem,
                form,
                f'{shape[0]}x{shape[1]}',
                whole,
                batch,
                round(ms, 2),
                round(deciles[0], 2),
                round(deciles[-1], 2),
                round(1e3 * batch / ms, 3),
                round(gmacs[kind], 2),
                round(_weights_mb(models[form]), 1) if form in models else 0.0,
                round(peaks[form], 1),
                round(gain, 3),
                round(gain * gmacs[kind] / gmacs['dense'], 3),
                round(fastest / ms, 3),
            )
        )
    return timings


def _in_backends(
    kind: str, graph: Path, images: Tensor, backends: Sequence[str], precisions: Sequence[str]
) -> dict[str, Callable]:
    """Runs of a graph on images, in every precision that a backend has."""
    array = images.contiguous().numpy()
    graphs = dict.fromkeys(precisions, graph)
    if 'int8' in precisions:
        graphs['int8'] = graph.with_suffix('.int8.onnx')
        quantize_graph(graph, [array[:1]], graphs['int8'])
    return {
        _form(f'{kind} {name}', precision): partial(
            load_graph(name, graphs[precision], precision, array.shape).run, array
        )
        for name in backends
        for precision in precisions
        if precision in BACKENDS[name]
    }


def _form(kind: str, precision: str) -> str:
    return kind if precision == 'fp32' else f'{kind} {precision}'


def _choices(model: nn.Module) -> str:
    """For how many kinds of layers the plan chose which kernel."""
    plans = {id(c.plan): c.plan for c in planned_convs(model)}
    count: dict[str, int] = {}
    for plan in plans.values():
        for choice in plan.choices.values():
            count[choice.candidate] = count.get(choice.candidate, 0) + 1
    return ', '.join(f'{n} {name}' for name, n in count.items())


def _runner(model: nn.Module, images: Tensor, whole: bool) -> Callable[[], object]:
    if not whole:
        raw = RawOutputs(model)
        return lambda: raw(images)
    return lambda: detect(model, images)


@torch.no_grad()
def _measure(
    runs: dict[str, Callable], rounds: int, device: str, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds and peak memory of every run, in turns."""
    peaks = {}
    with progress_bar('Timing forms', len(runs) * (WARM_UP + 1 + rounds)) as step:
        for form, run in runs.items():
            for _ in range(WARM_UP):
                run()
                step()
            peaks[form] = peak_memory(run, device)
            step()
        return times_in_turns(runs, rounds, device, clock, after_each=step), peaks


def _weights_mb(model: nn.Module) -> float:
    tensors = {id(t): t for t in model.state_dict(keep_vars=True).values()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    size += sum(conv.extra_bytes() for conv in planned_convs(model))
    return size / 2**20


def write_csv(timings: Sequence[Timing], path: Path, device: str) -> None:
    """One row per detector, form and batch, and where it was measured."""
    where = machine(device)
    write_rows(path, [asdict(timing) | where for timing in timings])


def plot(timings: Sequence[Timing], path: Path) -> None:
    """Time against MACs, dense to het; the dashed line is efficiency 1."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5))
    least = 1.0
    for timing in timings:
        if not timing.form.startswith('het'):
            continue
        macs = timing.efficiency / timing.gain
        least = min(least, macs, 1 / timing.gain)
        deployed = timing.form != 'het'
        axes.plot(
            macs,
            1 / timing.gain,
            'o' if deployed else 'x',
            label=f'{timing.config} {timing.form} x{timing.batch}',
        )
    axes.plot([least, 1], [least, 1], 'k--', label='efficiency 1')
    axes.set(xlabel='MACs / dense MACs', ylabel='time / dense time')
    axes.legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
