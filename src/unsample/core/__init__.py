"""One move, and the walk: tensors, noise levels and functions; no files of models, no pixels."""
