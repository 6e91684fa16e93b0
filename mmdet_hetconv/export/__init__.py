"""ONNX graphs of a detector, its raw outputs or end to end, and the runtimes that run them."""
