"""val_bpb and the holdout: frozen, and independent of the recipe."""
