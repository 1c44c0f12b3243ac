"""The command line: one file for each command group; the commands only call the library."""

from .app import main as main
