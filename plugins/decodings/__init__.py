"""Built-in plugins of kind decoding."""
