"""Built-in plugins of kind sampler."""
