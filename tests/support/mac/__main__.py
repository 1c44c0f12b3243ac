"""`python -m tests.support.mac [--model "M1 8 GB"] ARGUMENTS`: a Python with these arguments, in the simulated Mac."""

import os
import sys

from . import environment

arguments = sys.argv[1:]
model = [arguments.pop(0), arguments.pop(0)][1:] if arguments[:1] == ["--model"] else []
os.execve(sys.executable, [sys.executable, *arguments], os.environ | environment(*model))
