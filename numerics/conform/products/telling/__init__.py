"""What is wrong with a product: its smallest case, the law that it breaks, the deviation by name."""
