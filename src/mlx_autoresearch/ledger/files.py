"""What the files in a home are called: the folder of one search, or of one sweep."""

from __future__ import annotations

from pathlib import Path

LEDGER = "ledger.jsonl"
TABLE = "results.tsv"
SETTINGS = "research.yaml"  # of a search, resolved
TRUSTED = "state.json"  # SHA-256 of what a search's results depend on
STARTED_WITH = "settings"  # in it: those of the start
HOLDOUT = "holdout.json"
LOCK = ".lock"
STARTING = ".starting"  # there while a search's folder and branch are being made
_EXPERIMENTS = "experiments"
_POINTS = "trials"  # of a sweep

# In an experiment's folder.
OUTPUT = "output.txt"  # of the trial that failed
DIFF = "diff.patch"
BRIEF = "brief.md"  # what the agent was told
TRACEBACK = "traceback.txt"  # of an error that nobody foresaw; of one between experiments, in the home
TRANSCRIPT = "transcript.txt"  # what the agent printed
CODE = "code"  # a snapshot, while changed code is measured
SCRATCH = ".scratch"  # the beginning of the names of folders for untrusted processes, gone afterwards


def experiments_folder(home: Path) -> Path:
    """Where a search keeps a folder for every experiment."""
    return home / _EXPERIMENTS


def experiment_folder(home: Path, number: int) -> Path:
    """Where the diff, the output and the run folders of one experiment are."""
    return experiments_folder(home) / f"{number:04d}"


def point_folder(home: Path, number: int) -> Path:
    """Where the run folders of one point of a sweep are, one for each seed."""
    return home / _POINTS / f"{number:04d}"
