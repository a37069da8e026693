"""Built-in plugins of kind check."""
