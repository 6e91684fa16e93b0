"""Turn a trained model into its inference form."""

import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..kernels import Plan, planned_convs
from ..trace import fewest_passing, is_detector, record, record_examples
from ..trace.examples import call_with, detect
from ..trace.modules import left_alone
from .interfaces import give_rows, keep_inputs, reading_kinds, take_back
from .precision import check_precision, set_precision
from .proof import Proof
from .quantization import quantize
from .rewriting.fold import can_fold
from .rewriting.rewrite import Rewriter

# Relative difference that rounding makes, at most, in float32.
TOLERANCE = 1e-4


def switch_to_deploy(
    model: nn.Module,
    plan: Plan | None = None,
    *,
    example: Any = None,
    precision: str = 'fp32',
    calibration: Sequence[Any] = (),
    keep: Collection[str] = (),
) -> nn.Module:
    """Fold and fuse for inference, and let a plan choose the kernels.

    The model is recorded on an example. Batch norms are folded into the convolutions
    before them, and every HetConv2d and dense convolution becomes a PlannedConv2d, which
    also computes the ReLU and the sum that follow. The result is compared with the
    original; changes that alter its outputs are undone and named in the log. The model
    can no longer be trained. Switching again changes only the precision.

    If the model takes no random images and no example is given, single convolutions are
    replaced and nothing is folded.

    Args:
        model (nn.Module): changed in place, and put into inference mode.
        plan (Plan, optional): made by default; it is an attribute of every
            PlannedConv2d.
        example: inputs of the model, a tuple for several, a dict for keywords. By
            default random images.
        precision (str): 'fp32', 'bf16' or 'int8', in which convolutions
            compute. What goes into the model and comes out stays float32.
        calibration (Sequence[Tensor]): for int8, inputs of the model, or
            images for a detector of mmdet, normalised and of its input's size.
        keep (Collection[str]): for int8, names of layers that do not compute
            in it, see :func:`~mmdet_hetconv.deploy.quantization.quantize`.

    Returns:
        nn.Module: the model; another module only if the model itself is a
        single convolution.

    Raises:
        ValueError: a precision that is unknown, or not to be had here; int8
            without calibration, or with inputs that give other than finite
            numbers; the model does not run on the example.
    """
    weight = next(model.parameters(), None)
    check_precision(precision, torch.device('cpu') if weight is None else weight.device)
    if isinstance(calibration, Tensor):
        calibration = [calibration]
    elif not isinstance(calibration, Sequence):
        calibration = list(calibration)
    if precision == 'int8' and not len(calibration):
        raise ValueError("precision='int8' needs calibration inputs, there are none")
    model.eval()
    plan = plan if plan is not None else Plan()
    with left_alone(model):
        model = _rewritten(model, plan, example)
        set_precision(model, precision, example)
        if precision == 'int8':
            quantize(model, calibration, detect if is_detector(model) else call_with, keep=keep)
    return model


def fold_bn(model: nn.Module, example: Any = None) -> int:
    """Fold every batch norm that can be; nn.Identity takes its place.

    A norm is folded if it is in inference mode, has statistics, and is the only reader
    of the output of a nn.Conv2d, a HetConv2d or a GroupPointwiseConv2d when the model
    runs on an example. It stays if it or the convolution has hooks, if other code uses
    their parameters, or if the outputs of the model would change.

    Args:
        model (nn.Module): changed in place.
        example: as of :func:`switch_to_deploy`.

    Returns:
        int: the number of norms folded.
    """
    frozen = {module for module in model.modules() if can_fold(module)}
    if not frozen:
        return 0
    with left_alone(model):
        proof = _proof_of(model, example)
        rewriter = Rewriter(model, proof.recordings)

        def fold_but(left: Collection[str]) -> None:
            rewriter.undo()
            rewriter.fold_norms(left, frozen)

        left = fewest_passing(rewriter.units, fold_but, proof.checks(lambda: model, TOLERANCE))
        _name_what_stays(left)
    for name, conv in rewriter.folded.items():
        conv.train(rewriter.convs[name].training)
    return len(rewriter.folded)


def _proof_of(model: nn.Module, example: Any) -> Proof:
    """Outputs on examples; none if the model does not run, or is not deterministic."""
    proof = Proof(model, record_examples(model, example))
    reason = 'does not run on random images; give an example'
    if proof.error(model) > TOLERANCE:
        reason, proof = 'gives other numbers each time it is run', Proof(model, ())
    if not proof.runs:
        print_log(
            f'HetConv: {type(model).__name__} {reason}: convolutions are exchanged one by one, '
            'nothing is folded',
            'current',
        )
    return proof


def _name_what_stays(left: Collection[str]) -> None:
    if left:
        print_log(
            f'HetConv: as they were stay {", ".join(sorted(left))}: exchanged, they changed what '
            'the model puts out',
            'current',
            level=logging.WARNING,
        )


def _rewritten(model: nn.Module, plan: Plan, example: Any) -> nn.Module:
    """Replace and fuse whatever leaves the outputs unchanged; returns the model."""
    if not Rewriter(model, ()).units:
        keep_inputs(model, ())
        return model
    proof = _proof_of(model, example)
    rewriter = Rewriter(model, proof.recordings)

    def rewrite(left: Collection[str], plan: Plan) -> nn.Module:
        rewriter.undo()
        rewriter.fold_norms(left)
        return rewriter.plan_convs(plan, left)

    if not proof.recordings:
        model = rewrite((), plan)
        for conv in planned_convs(model):
            give_rows(conv)
        return model

    # The plan compares kernels; here only the rewriting is checked.
    first = Plan(frozen=True, only=['two_branch_nchw', 'dense_nchw'])
    forms = [model]

    def rewrite_but(left: Collection[str]) -> None:
        forms[0] = rewrite(left, first)

    _name_what_stays(
        fewest_passing(rewriter.units, rewrite_but, proof.checks(lambda: forms[0], TOLERANCE))
    )
    (model,) = forms
    keep_inputs(model, proof.recordings)
    _give_rows_where_they_are_read(model, proof)
    for conv in planned_convs(model):
        conv.plan = plan
        conv._forget()
    return model


def _give_rows_where_they_are_read(model: nn.Module, proof: Proof) -> None:
    """Let convolutions return maps channels first to code that depends on it."""
    convs = planned_convs(model)
    kinds = reading_kinds(convs, [record(model, partial(run, model)) for run in proof.runs])
    layouts = [
        f'{kind}_{layout}' for layout in ('nhwc', 'nchw') for kind in ('two_branch', 'dense')
    ]
    channels_last = Plan(frozen=True, only=layouts)
    for conv in convs:
        conv.plan = channels_last
        conv._forget()
    rows: set[type] = set()

    def give(kinds_of_code: Collection[type]) -> None:
        rows.clear()
        rows.update(kinds_of_code)
        for conv in convs:
            (give_rows if kinds[conv] & rows else take_back)(conv)

    checks = proof.checks(lambda: model, TOLERANCE, rows=rows) + proof.ends(model)
    fewest_passing(sorted(set().union(*kinds.values()), key=str), give, checks)
