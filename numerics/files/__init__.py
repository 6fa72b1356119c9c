"""Files: safetensors read and written, checkpoints larger than memory, and what other tools left in them."""
