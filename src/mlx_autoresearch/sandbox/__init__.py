"""Runs any command within limits and confined; knows nothing of training."""
