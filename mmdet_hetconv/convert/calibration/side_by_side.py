"""Several forward passes side by side that wait for each other at modules.

Layer-wise calibration needs a layer's inputs on all batches before it can
give the layer its weights, and the layers behind it need those weights.
Instead of running everything again for every layer, each batch's forward pass
is a thread that stops in front of the layer until its weights are there. Only
one of them runs at any time; what waits is held in memory.

Why threads: on one thread of an AMD EPYC (other work ran beside it), running
everything again took ResNet-56 on 10 batches of 100 images of 32 x 32 about 15
times as long (409 s against 28 s; the peak rose by 0.2 GiB in place of 1.0)
and ResNet-50's backbone on 4 batches of 2 images of 256 x 256 about 4 times
(95 s against 22 s; 0.4 GiB in place of 0.5), random weights, p=4.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from ...trace import hooked

Work = Callable[[], None]
# Receives a module's name and the inputs of the passes that wait there, by
# the number of the pass.
Visit = Callable[[str, dict[int, Tensor]], None]


class _Stopped(BaseException):
    """Unwinds a forward pass that has nothing left to do."""


class _Pass(threading.Thread):
    """One forward pass, which runs only inside :meth:`resume`.

    Attributes:
        place: the module it waits in front of; None once it has ended.
        value: that module's input.
    """

    def __init__(self, work: Work):
        super().__init__(daemon=True)
        self.place: str | None = None
        self.value: Tensor | None = None
        self._work = work
        self._error: BaseException | None = None
        self._stopping = False
        self._may_run = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        self._may_run.acquire()
        try:
            if not self._stopping:
                with torch.no_grad():  # the grad mode is a thread's own
                    self._work()
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        self.place = self.value = None
        self._waits.release()

    def wait(self, place: str, value: Tensor) -> None:
        """Called by the thread itself, in front of a module."""
        self.place, self.value = place, value
        self._waits.release()
        self._may_run.acquire()
        if self._stopping:
            raise _Stopped

    def resume(self) -> None:
        """Let it run to its next module, or to its end."""
        self.value = None
        self._may_run.release()
        self._waits.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it where it waits."""
        if self.is_alive():
            self._stopping = True
            self._may_run.release()
            self.join()


def run_side_by_side(works: Sequence[Work], modules: dict[str, nn.Module], visit: Visit) -> None:
    """Run `works` and call `visit` in front of each module, in order.

    A pass that does not come by a module is not waited for. After the last
    module all passes end.

    Args:
        works: forward passes, run under no_grad.
        modules: what to stop at, in the order of execution.
    """
    passes: list[_Pass] = []
    done: set[str] = set()

    def stop(name: str, x: Tensor) -> None:
        current = threading.current_thread()
        if isinstance(current, _Pass) and name not in done:
            current.wait(name, x)

    with hooked(modules, before=stop):
        try:
            for work in works:
                passes.append(_Pass(work))
                passes[-1].resume()
            last = next(reversed(modules), None)
            for name in modules:
                waiting = {i: one for i, one in enumerate(passes) if one.place == name}
                visit(name, {i: one.value for i, one in waiting.items() if one.value is not None})
                done.add(name)
                if name == last:
                    break
                for one in waiting.values():
                    one.resume()
        finally:
            for one in passes:
                one.stop()


def run_one_by_one(
    works: Sequence[Work], module: nn.Module, calls: int, visit: Callable[[int, int, Tensor], None]
) -> None:
    """Run each of `works` until it has called `module` `calls` times.

    Holds one pass in memory.

    Args:
        visit: receives the number of the pass, that of the call, the input.
    """
    number, seen = -1, 0

    def look(name: str, x: Tensor) -> None:
        nonlocal seen
        visit(number, seen, x)
        seen += 1
        if seen == calls:
            raise _Stopped

    with torch.no_grad(), hooked({'': module}, before=look):
        for work in works:
            number, seen = number + 1, 0
            with suppress(_Stopped):
                work()
