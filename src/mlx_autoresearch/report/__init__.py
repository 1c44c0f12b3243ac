"""What you wake up to: a picture and a page made of a research's or a sweep's ledger, and of nothing else."""
