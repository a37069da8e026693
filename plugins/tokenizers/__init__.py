"""Built-in plugins of kind tokenizer."""
