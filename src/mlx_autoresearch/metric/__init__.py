"""val_bpb and the score on the holdout: frozen, and independent of the recipe."""
