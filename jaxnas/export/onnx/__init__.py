"""A model of ours as an ONNX graph that reads on from a cache."""
