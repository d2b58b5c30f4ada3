"""The measurements behind the figures in the documents: each is a script of its own, and `make bench` runs all.

All take `--json FILE` and `--quick`. Runs are paired: in each round every subject takes its turn, so that what the
machine does meanwhile befalls all of them, and ratios are medians of the rounds' ratios.
"""
