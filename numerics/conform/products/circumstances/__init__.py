"""What a product may depend on besides its numbers: calls before and beside it, and memory."""
