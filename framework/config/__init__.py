"""From text to a frozen experiment: positions, merging, strict structuring, writing out."""
