"""Pairs to triplets: groups, splits, negatives, the leak audit."""
