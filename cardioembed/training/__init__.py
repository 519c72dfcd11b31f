"""Contrastive training: losses, whole-batch gradients in chunks, the trainer and its checkpoints."""
