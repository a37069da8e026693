"""What `new-plugin` copies: a small, whole plugin of each kind, named `Template` until then."""
