"""Formats of the runtimes, one a file, each a `base.Format` value; `solution.registry.FORMATS` lists them."""
