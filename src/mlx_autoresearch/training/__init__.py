"""One training run: set-up, clock, loop, run folder, summary."""
