"""Nets in ever fewer bits: what `benchmarks/bits.py` runs."""
