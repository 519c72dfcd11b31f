"""Text to vectors: loading a base, pooling, batching, encoding, saving."""
