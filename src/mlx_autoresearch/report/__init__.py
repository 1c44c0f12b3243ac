"""Reports: a picture and a page made from a ledger."""
