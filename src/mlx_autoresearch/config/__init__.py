"""Typed settings, from YAML files and the command line, with errors in one line."""
