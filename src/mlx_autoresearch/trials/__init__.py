"""Trains and scores one configuration with one seed, in processes of its own."""
