"""What models are measured on: each file reads one kind of test set and measures one model on it."""
