"""`python -m mlx_autoresearch`: the command line."""

from mlx_autoresearch.cli import main

main()
