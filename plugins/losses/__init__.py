"""Built-in plugins of kind loss."""
