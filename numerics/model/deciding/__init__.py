"""What becomes of each tensor of a model, and why: the decisions that planning puts together."""
