"""One file per command of `python -m solution`: HELP, add_arguments(parser), run(arguments)."""
