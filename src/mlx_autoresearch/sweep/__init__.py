"""Sweeps: any fields of a configuration over a grid, at random or by TPE, in a queue that many processes may share."""
