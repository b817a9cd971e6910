"""Looking at model files from strangers before anything else does: no PyTorch, no execution in this process."""
