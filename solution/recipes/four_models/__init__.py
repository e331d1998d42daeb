"""Pruning, 16 to 1 bit and distillation of four nets on two data sets."""
