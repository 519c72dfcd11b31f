"""Pages to sentences: reading, cleaning, segmentation, deduplication."""
