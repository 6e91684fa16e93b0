"""8 bits for the convolutions of a deployed model, from calibration images.

Static quantization after training: levels of every input and output by least
squared error on what the images give, weights per filter. A layer that alone
changes what comes out too much keeps its precision. Most change their own output
so little that the network need not run for each of them.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..kernels import PlannedConv2d
from ..kernels.cpu.library import load_library
from ..kernels.int8 import most_weight
from ..kernels.int8 import quantize as to_levels
from ..kernels.weights import Int8, Levels
from ..trace import Recording, fewest_passing, record
from ..trace.examples import noise_like
from ..utils.machine import cpu_name
from ..utils.progress import progress_bar
from ..utils.table import format_table
from .byte_outputs import byte_outputs
from .proof import Proof

# Values of a feature map and image that its levels are fitted to.
SAMPLES = 4096
# Shares of the range that are tried.
CLIPS = torch.linspace(0.3, 1.0, 36).tolist()
# Batches on which the effect of single layers is measured.
SENSITIVITY_BATCHES = 2
# A layer whose quantization alone adds this relative squared error keeps its
# precision.
MOST_ERROR = 0.01
# What bytes between layers may add, |bytes - floats| / |floats|; more is no rounding.
MOST_BYTES_ERROR = 0.1
# What a layer adds to its own output grows on its way through the network: fourfold
# at most in trained ResNets. Below this it is not followed there.
MOST_OWN_ERROR = MOST_ERROR / 10

Run = Callable[[nn.Module, Any], Any]


@dataclass
class Int8Report:
    """What became of each convolution; prints as a table.

    Attributes:
        error: relative squared error from quantizing this layer alone, by name: of
            what leaves the convolutions, or, where that is small, of its own output.
        int8: how each layer computes; None for those that keep their precision.
    """

    error: dict[str, float] = field(default_factory=dict)
    int8: dict[str, Int8 | None] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = []
        for name, int8 in self.int8.items():
            row = [name, f'{self.error[name]:.2g}' if name in self.error else 'not measured']
            if int8 is None:
                rows.append([*row, 'kept', '', ''])
                continue
            scale, zero = int8.input
            output = 'bytes' if int8.output else 'floats'
            rows.append([*row, 'int8', f'{scale:.4g} * (q - {zero})', output])
        head = ('layer', 'error alone', 'precision', 'input levels', 'output')
        return format_table(head, rows)


@torch.no_grad()
def quantize(
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
    *,
    keep: Collection[str] = (),
    show_progress: bool = False,
) -> Int8Report:
    """Let the convolutions of a deployed model compute in 8 bits.

    Args:
        model (nn.Module): deployed; changed in place.
        batches: calibration data.
        run: the model's forward pass on a batch.
        keep: names of layers that keep their precision, as of
            ``model.named_modules()``; with * and ? as in file names.

    Raises:
        ValueError: there are no batches; a name in ``keep`` fits no layer; a
            feature map is not finite. The model is unchanged then.
    """
    if not len(batches):
        raise ValueError('int8 needs calibration images, there are none')
    convs = {n: m for n, m in model.named_modules() if isinstance(m, PlannedConv2d)}
    kept = set()
    for pattern in keep:
        found = {name for name in convs if fnmatch(name, pattern)}
        if not found:
            raise ValueError(
                f'keep: {pattern!r} is none of the convolutions, such as {[*convs][:3]}'
            )
        kept |= found
    report = Int8Report(int8=dict.fromkeys(convs))
    few = [batches[i] for i in range(min(SENSITIVITY_BATCHES, len(batches)))]
    with ExitStack() as stack:
        # None of these runs is as the quantized model's: there is nothing to time.
        for plan in {id(conv.plan): conv.plan for conv in convs.values()}.values():
            stack.enter_context(plan.untimed())
        stack.enter_context(_in_floats(convs.values()))
        given, made = _observe(convs, model, batches, run, show_progress)
        levels = {name: known for name, known in given.items() if name not in kept}
        report.error = _own_errors(convs, levels, model, few, run)
        recordings = [
            record(model, partial(run, model, batch))
            for batch in (batches[0], noise_like(batches[0]))
        ]
        far = [name for name, error in report.error.items() if not error <= MOST_OWN_ERROR]
        if far:
            report.error |= _sensitivity(
                convs, far, given, model, few, run, recordings, show_progress
            )
        chosen = {name for name, error in report.error.items() if error <= MOST_ERROR}
        as_bytes = byte_outputs(convs, recordings, chosen)
        report.int8 |= {name: Int8(given[name], None) for name in chosen}
        set_int8(model, report.int8)
        first = partial(_on, run=run, batch=batches[0])
        proof = Proof(model, [(first, record(model, partial(first, model)))])

        def give_floats(floats: set[str]) -> None:
            for name in as_bytes:
                output = None if name in floats else made.get(name)
                convs[name].int8 = report.int8[name] = Int8(given[name], output)

        checks = proof.checks(lambda: model, MOST_BYTES_ERROR, any_float=True)
        fewest_passing(sorted(as_bytes), give_floats, checks)
    return report


@contextmanager
def _in_floats(convs: Collection[PlannedConv2d]) -> Iterator[None]:
    """Levels from before are forgotten, unless the block fails."""
    before = {conv: conv.int8 for conv in convs}
    for conv in convs:
        conv.int8 = None
    try:
        yield
    except BaseException:
        for conv, int8 in before.items():
            conv.int8 = int8
        raise


def _on(model: nn.Module, run: Run, batch: Any) -> Any:
    return run(model, batch)


def set_int8(model: nn.Module, int8: dict[str, Int8 | None]) -> None:
    """Let convolutions compute as a report says.

    Raises:
        ValueError: there is no such convolution.
    """
    _tell_machine()
    # Nobody need write no_grad() for the sake of an L2Norm's weight.
    for parameter in model.parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(False)
    for name, how in int8.items():
        try:
            conv = model.get_submodule(name)
        except AttributeError:
            conv = None
        if not isinstance(conv, PlannedConv2d):
            raise ValueError(f'{name!r} is no convolution of this model')
        conv.int8 = how


@cache
def _tell_machine() -> None:
    library, _ = load_library()
    if most_weight() < 127:
        text = f'HetConv: {cpu_name()} has no VNNI: int8 gains less, its weights have 7 bits'
        print_log(text, 'current')
    elif library is not None and library.hetconv_bytes_per_word() < 4:
        print_log(f'HetConv: {cpu_name()} multiplies no bytes: int8 gains less', 'current')


class _Samples:
    """Some values of a feature map, and its range, over all batches."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.low = self.high = 0.0

    def add(self, name: str, x: Tensor, generator: torch.Generator) -> None:
        if not x.numel():
            return
        low, high = map(float, x.aminmax())
        if not (abs(low) < float('inf') and abs(high) < float('inf')):
            raise ValueError(f'{name}: a feature map of the calibration images is not finite')
        self.low, self.high = min(self.low, low), max(self.high, high)
        x = x[None] if x.dim() == 3 else x
        flat = x.reshape(-1) if x.is_contiguous() else x.permute(0, 2, 3, 1).reshape(-1)
        at = torch.randint(len(flat), (min(SAMPLES, len(flat)),), generator=generator)
        self.values.append(flat[at.to(flat.device)].float().cpu())

    def levels(self) -> Levels:
        """Of least squared error; 0 is one of them, since padding is 0."""
        values = torch.cat(self.values)
        best, least = Levels(1.0, 0), float('inf')
        for clip in CLIPS:
            scale = clip * (self.high - self.low) / 255
            levels = Levels(scale, round(-clip * self.low / scale))
            back = (to_levels(values, levels) - levels.zero) * scale
            error = float((back - values).square().sum())
            if error < least:
                best, least = levels, error
        return best


def _observe(
    convs: dict[str, PlannedConv2d],
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
    show_progress: bool,
) -> tuple[dict[str, Levels], dict[str, Levels]]:
    """Levels of what goes into each convolution that runs, and comes out."""
    inputs: dict[str, _Samples] = {}
    outputs: dict[str, _Samples] = {}
    generator = torch.Generator().manual_seed(0)

    def look(name: str, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.setdefault(name, _Samples()).add(name, args[0], generator)
        outputs.setdefault(name, _Samples()).add(name, output, generator)

    bar = progress_bar('Levels of int8', len(batches), show_progress)
    with _watching(convs, look), bar as step:
        for batch in batches:
            run(model, batch)
            step()
    # Where everything is 0 no range is known: the layer keeps its precision.
    return _levels(inputs), _levels(outputs)


def _levels(samples: dict[str, _Samples]) -> dict[str, Levels]:
    return {name: s.levels() for name, s in samples.items() if s.low < s.high}


def _own_errors(
    convs: dict[str, PlannedConv2d],
    levels: dict[str, Levels],
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
) -> dict[str, float]:
    """By layer, its error over the variance of its own output, the largest of all runs.

    What is the same everywhere in a channel, a bias for one, makes no error look small.
    """
    errors = dict.fromkeys(levels, 0.0)

    def look(name: str, args: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.numel():
            return
        convs[name].int8 = Int8(levels[name])
        try:
            error = (convs[name].forward(*args) - output).float().square().sum()
        finally:
            convs[name].int8 = None
        y = output.float()
        variance = (y - y.mean((-2, -1), keepdim=True)).square().sum()
        share = float(error / variance) if variance else float('inf')
        errors[name] = max(errors[name], share)

    with _watching({name: convs[name] for name in levels}, look):
        for batch in batches:
            run(model, batch)
    return errors


def _sensitivity(
    convs: dict[str, PlannedConv2d],
    names: list[str],
    given: dict[str, Levels],
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
    recordings: Sequence[Recording],
    show_progress: bool,
) -> dict[str, float]:
    """By layer, the error that it alone adds to what other parts read."""
    ends = set(convs) - byte_outputs(convs, recordings, set(convs))

    def outputs_of(batch: Any) -> dict[str, Tensor]:
        seen: dict[str, list[Tensor]] = {}

        def look(name: str, args: tuple[Tensor, ...], output: Tensor) -> None:
            if name in ends:
                seen.setdefault(name, []).append(output.float().flatten())

        with _watching(convs, look):
            run(model, batch)
        return {name: torch.cat(ys) for name, ys in seen.items()}

    def outputs() -> list[dict[str, Tensor]]:
        return [outputs_of(batch) for batch in batches]

    wanted = outputs()
    errors = {}
    with progress_bar('Layers that int8 changes most', len(names), show_progress) as step:
        for name in names:
            convs[name].int8 = Int8(given[name])
            try:
                errors[name] = _relative_error(outputs(), wanted)
            finally:
                convs[name].int8 = None
            step()
    return errors


def _relative_error(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]]) -> float:
    """The largest |found - wanted|^2 / |wanted|^2 of all feature maps.

    Those of regions of other images, whose number differs, are left out.
    """
    shares = []
    for mine, theirs in zip(found, wanted, strict=True):
        for name, y in theirs.items():
            if name in mine and mine[name].shape == y.shape and y.any():
                shares.append(float((mine[name] - y).square().sum() / y.square().sum()))
    return max(shares, default=0.0)


@contextmanager
def _watching(convs: dict[str, PlannedConv2d], look: Callable[..., None]) -> Iterator[None]:
    """Call ``look(name, inputs, output)`` whenever a convolution has run."""

    def hook_of(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs, output: look(name, (*args, *kwargs.values()), output)

    with ExitStack() as stack:
        for name, conv in convs.items():
            handle = conv.register_forward_hook(hook_of(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield
