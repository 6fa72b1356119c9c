"""What is asked of a product to see how it adds, and the sums that it would have to give."""
