"""What an experiment may change, and whether something else has changed."""
