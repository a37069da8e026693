"""The commands, one thin file each: `arguments`, `execute`, and an `EXAMPLE`."""
