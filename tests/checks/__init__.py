"""Checks find what was planted, and nothing else."""
