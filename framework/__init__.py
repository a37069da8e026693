"""A minimal core that trains NLP models from plugins named in one TOML file."""

__version__ = "0.1.0"
