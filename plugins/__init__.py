"""The built-in plugins: one file each, a folder per kind, found through entry points."""
