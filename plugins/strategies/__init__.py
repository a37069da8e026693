"""Built-in plugins of kind strategy."""
