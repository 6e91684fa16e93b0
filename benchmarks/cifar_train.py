"""Training and evaluation of a CIFAR-10 classifier on one device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from cifar_data import DeviceLoader
from torch import Tensor, nn

from mmdet_hetconv.convert.distillation.features import find_taps, relative_errors, tapped


def bf16(device: torch.device, enabled: bool) -> torch.autocast:
    """bf16 autocast, whose gradients need no scaling, unlike those of fp16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def evaluate(model: nn.Module, loader: DeviceLoader, amp: bool = False):
    """Accuracy in per cent on a loader that does not augment."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=loader.device)
    with torch.no_grad(), bf16(loader.device, amp):
        for images, labels in loader:
            right += (model(images).argmax(1) == labels).sum()
    return 100 * right.item() / len(loader.labels)


def learning_rate(step: int, steps: int, warm_up: int) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


class GraphedStep:
    """A forward and backward pass, replayed from a CUDA graph.

    The kernels of a small network take the GPU less time than their launches
    take the host: on an H200 77 ms a step for a ResNet-56 and its teacher.

    Args:
        run: returns the loss and the scores of a batch; fills the gradients.
        optimizer: of all parameters that get gradients.
        images, labels: a batch, that all others are like.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        labels: Tensor,
    ):
        self.images, self.labels = images.clone(), labels.clone()
        # What is made at the first call may not be made during a capture.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                optimizer.zero_grad()
                run(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(stream)
        optimizer.zero_grad()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss, self.scores = run(self.images, self.labels)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        return self.loss, self.scores


def save_atomically(value: dict, path: Path) -> None:
    """torch.save; the file appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix('.part')
    torch.save(value, part)
    part.replace(path)


@dataclass
class TrainingState:
    """All that a stopped training needs to go on, in one file.

    Args:
        path: the file, made by the first :meth:`save`.
        notes: numbers and lists of the caller's, kept with the rest.
    """

    path: Path
    notes: dict

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DeviceLoader, step: int
    ) -> None:
        random = [torch.get_rng_state(), loader.generator.get_state()]
        if loader.device.type == 'cuda':
            random.append(torch.cuda.get_rng_state())
        value = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)
        save_atomically(value | dict(random=random, notes=self.notes), self.path)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DeviceLoader) -> int:
        """The step to go on from, 0 without a file."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location=loader.device)
        model.load_state_dict(saved['model'])
        optimizer.load_state_dict(saved['optimizer'])
        torch.set_rng_state(saved['random'][0].cpu())
        loader.generator.set_state(saved['random'][1].cpu())
        if loader.device.type == 'cuda':
            torch.cuda.set_rng_state(saved['random'][2].cpu())
        self.notes.update(saved['notes'])
        return saved['step']


def train(
    model: nn.Module,
    loader: DeviceLoader,
    epochs: float,
    peak_rate: float = 0.1,
    weight_decay: float = 5e-4,
    warm_up_epochs: float = 0.5,
    amp: bool = False,
    after_epoch: Callable[[int, float], None] | None = None,
    teacher: nn.Module | None = None,
    label_smoothing: float = 0,
    state: TrainingState | None = None,
) -> None:
    """SGD with Nesterov momentum 0.9 for a number of epochs, in place.

    On a GPU the last batch of an epoch is left out if it is smaller.

    Args:
        model: on the loader's device, in channels_last.
        after_epoch: called with the epoch (from 1) and the accuracy, in
            per cent, on the augmented images while they were trained on.
        teacher: the dense network, in eval mode, whose features the HetConv
            network is trained towards as well, as by mmdet_hetconv's TeacherHook.
        label_smoothing: share of each target that is spread over all classes.
        state: is written after each epoch; a training that was stopped goes on
            from it, with the same result.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=peak_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    steps = max(1, round(epochs * len(loader)))
    warm_up = min(steps // 5, round(warm_up_epochs * len(loader)))
    taps = [] if teacher is None else find_taps(model)

    def run(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with bf16(loader.device, amp):
            with tapped(model, taps) as mine:
                scores = model(images)
            loss = F.cross_entropy(scores, labels, label_smoothing=label_smoothing)
            if teacher is not None:
                with torch.no_grad(), tapped(teacher, taps) as theirs:
                    teacher(images)
                loss = loss + sum(relative_errors(mine, theirs).values())
        loss.backward()
        return loss.detach(), scores.detach()

    graphed = None
    step = 0 if state is None else state.load(model, optimizer, loader)
    while step < steps:
        model.train()
        right = torch.zeros((), dtype=torch.int64, device=loader.device)
        for images, labels in loader:
            if step == steps:
                break
            rate = peak_rate * learning_rate(step, steps, warm_up)
            optimizer.param_groups[0]['lr'] = rate
            if loader.device.type == 'cuda':
                if graphed is None:
                    graphed = GraphedStep(run, optimizer, images, labels)
                if len(labels) < len(graphed.labels):
                    continue
                loss, scores = graphed(images, labels)
            else:
                optimizer.zero_grad()
                loss, scores = run(images, labels)
            optimizer.step()
            right += (scores.argmax(1) == labels).sum()
            step += 1
        if not torch.isfinite(loss):
            raise FloatingPointError(f'loss is {loss.item()} at step {step}')
        if after_epoch is not None:
            seen = 100 * right.item() / len(loader.labels)
            after_epoch(math.ceil(step / len(loader)), seen)
        if state is not None:
            state.save(model, optimizer, loader, step)
