"""What a model is: one forward of it, what its operations and classes do, and where its tensors are."""
