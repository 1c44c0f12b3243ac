"""What an experiment may change, and nothing else: model, optimizer, schedule, step, kernels' Python side."""
