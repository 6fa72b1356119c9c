"""What torch sees of us: its operators, its gradients, and a QTensor that is one of its tensors."""
