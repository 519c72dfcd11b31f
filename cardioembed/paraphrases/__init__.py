"""Sentences to pairs: fidelity gates and merging."""
