"""Built-in plugins of kind command."""
