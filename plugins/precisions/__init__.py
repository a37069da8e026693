"""Built-in plugins of kind precision."""
