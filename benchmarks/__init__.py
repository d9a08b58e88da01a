"""Speed and memory, as ratios in one run: `python -m benchmarks`. Not part of the wheel."""
