"""What the files in a run's folder are called. Needs no MLX."""

CONFIG = "config.yaml"  # resolved
INFO = "run.json"  # data, device, versions and command
METRICS = "metrics.jsonl"  # a line a step
CHECKPOINT = "checkpoint.safetensors"
SUMMARY = "summary.json"
