"""Real faults, injected into real runs: `python -m tests.faults` prints what each comes to."""
