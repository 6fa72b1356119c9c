"""The arithmetic as ONNX graphs: traced from the same sources, run by ONNX Runtime."""
