"""Known faults of products, by name: how each bends a product, and which explain what came."""
