"""What an experiment may change, and nothing else: model, optimizer, schedule, step, functions over kernels."""
