"""From a spec to ONNX, engines and a verified bundle."""
