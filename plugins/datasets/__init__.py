"""Built-in plugins of kind dataset."""
