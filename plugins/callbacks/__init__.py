"""Built-in plugins of kind callback."""
