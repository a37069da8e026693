"""Built-in plugins of kind source."""
