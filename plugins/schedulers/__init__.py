"""Built-in plugins of kind scheduler."""
