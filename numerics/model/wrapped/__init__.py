"""What a wrapped model is made of, eager or a graph: quantizers, and what runs them, keeps and loads them."""
