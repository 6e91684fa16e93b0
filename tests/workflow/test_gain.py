"""The sentence with which slim.py ends."""

from mmdet_hetconv.workflow.slimming.gain import gain


def form(label, ms, score=None, macs=10):
    metrics = {} if score is None else {'coco/bbox_mAP': score, 'coco/bbox_mAP_50': 0.9}
    return dict(label=label, ms=ms, macs=macs, metrics=metrics)


GIVEN = form('dense, trained form (fp32)', 60, 0.661)
DENSE = form('dense, deployed (int8)', 40, 0.655)


def test_what_was_gained():
    shipped = form('HetConv, deployed (int8)', 30, 0.646, macs=6)
    gained, sentence = gain([GIVEN, DENSE, shipped])
    assert gained
    assert sentence == (
        '0.661 to 0.646 mAP, 1.7x fewer MACs, 2.0x faster in int8 than the dense one as given '
        'and 1.3x than that one deployed (int8): 60.0, 40.0, 30.0 ms'
    )


def test_nothing_is_gained_where_the_dense_detector_is_as_fast():
    """Faster than what was given is not enough."""
    gained, sentence = gain([GIVEN, DENSE, form('HetConv, deployed (int8)', 39, 0.6, 6)])
    assert not gained
    assert sentence == (
        'nothing is gained: 39.0 ms in int8, the dense detector takes 40.0 ms, deployed (int8) '
        '(0.661 to 0.600 mAP, 1.7x fewer MACs)'
    )


def test_without_annotations_and_macs():
    shipped = form('HetConv, deployed (bf16)', 20, macs=None)
    gained, sentence = gain([form('dense, trained form (fp32)', 60), shipped])
    assert gained
    assert sentence == '3.0x faster in bf16 than the dense one as given: 60.0, 20.0 ms'
