"""What an evaluation costs: val_bpb's rows of whole documents beside the reference's rows, in one run.

    python benchmarks/evaluation.py [CONFIG.yaml] [section.key=value ...]

Both score about the same number of tokens of the configuration's prepared text, with a model as it is initialised.
"""

from __future__ import annotations

import sys
import time

from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.metric.score import score, score_reference
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.scoring import for_scoring
from mlx_autoresearch.training.setup import make_model

REPEATS = 3


def main() -> None:
    config = load_config(*split_settings(sys.argv[1:] or ["configs/default.yaml"]))
    data = open_data(config)
    sides = {"val_bpb": score, "val_bpb_reference": score_reference}
    seconds = dict.fromkeys(sides, float("inf"))
    with for_scoring(make_model(config)) as model:
        for _ in range(1 + REPEATS):  # the first compiles
            for name, side in sides.items():
                start = time.perf_counter()
                side(model, config, data)
                seconds[name] = min(seconds[name], time.perf_counter() - start)
        bpb = score(model, config, data)
    print(f"{bpb.tokens:,} tokens, {bpb.share:.1%} of the validation text, best of {REPEATS}")
    for name in sides:
        print(f"{name + ':':<18} {seconds[name]:.2f} s")
    print(f"ratio: {seconds['val_bpb'] / seconds['val_bpb_reference']:.3f}")


if __name__ == "__main__":
    main()
