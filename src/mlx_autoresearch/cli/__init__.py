"""The command line: one file a command group, thin commands over the library."""

from .app import main as main
