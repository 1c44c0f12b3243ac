"""The allocator's settings are for training on a CPU and for nothing else: they slow down whoever uses threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.machine import allocator, device, system
from mlx_autoresearch.training import setup
from tests.support.corpus import tiny_settings

# Threads that allocate at the same time get an arena each, unless there may be only one.
ARENAS = """
import ctypes, os, tempfile, threading

def arenas():
    barrier, libc = threading.Barrier(4), ctypes.CDLL(None)
    libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p

    def allocate():
        barrier.wait()
        for _ in range(100):
            libc.malloc(1000)
        barrier.wait()

    threads = [threading.Thread(target=allocate) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    path = os.path.join(tempfile.mkdtemp(), "malloc.xml")
    file = ctypes.c_void_p(libc.fopen(path.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    return open(path).read().count("<heap nr=")
"""

pytestmark = pytest.mark.skipif(not system.is_linux(), reason="glibc's")


def arenas_after(statement: str) -> int:
    code = f"{ARENAS}\n{statement}\nprint(arenas())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_an_import_changes_nothing() -> None:
    import_all = "import mlx_autoresearch\nfrom mlx_autoresearch import prepare, train, GPT, Tokenizer, evaluate_bpb"
    assert arenas_after(import_all) > 1
    assert arenas_after("from mlx_autoresearch.machine import allocator; assert allocator.keep_freed_memory()") == 1


@pytest.mark.parametrize("gpu", [False, True])
def test_training_on_a_cpu_asks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path, gpu: bool) -> None:
    asked: list[None] = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: asked.append(None))
    monkeypatch.setattr(device, "is_gpu", lambda: gpu)
    setup.make_model(validate_config(tiny_settings(tmp_path), "the test"))
    assert len(asked) == (not gpu)
