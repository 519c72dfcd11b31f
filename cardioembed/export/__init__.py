"""A trained model in forms that others open: whole weights, sentence-transformers, ONNX, the hub."""
