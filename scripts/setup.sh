#!/bin/sh
# Makes .venv and installs this package into it; `setup.sh dev` adds the developer's tools.
#   PYTHON  the interpreter; otherwise the first below that is Python 3.11 or newer
#   EXTRA   cpu or cuda, MLX's backend on Linux; otherwise cuda where nvidia-smi lists a GPU
# .venv/ready names the backend and is written last. Without it nothing in .venv is trusted, and all is made afresh.
set -eu

fail() {
    echo "setup: $*" >&2
    exit 1
}

find_python() {
    for python in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

make_venv() {
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$(find_python || echo "${PYTHON:-3.13}")" .venv # uv fetches an interpreter if need be
        return
    fi
    python=$(find_python) || fail "${PYTHON:-python3} is not Python 3.11 or newer: install one, or name it in PYTHON="
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python lacks venv: install it (Debian and Ubuntu: apt install python3-venv), or install uv"
    "$python" -m venv .venv
}

case $(uname -s)-$(uname -m) in
Darwin-arm64) backend= ;;
Darwin-*) fail "MLX needs a Mac with Apple silicon and a native (arm64) shell; this one is $(uname -m)" ;;
Linux-*)
    backend=cpu
    if nvidia-smi -L >/dev/null 2>&1; then backend=cuda; fi
    backend=${EXTRA:-$backend}
    ;;
*) fail "MLX runs on macOS and Linux, not on $(uname -s)" ;;
esac

extras=$backend
if [ "${1:-}" = dev ]; then extras=${extras:+$extras,}dev; fi
extras=${extras:+[$extras]}

if [ "$(cat .venv/ready 2>/dev/null)" != "backend=$backend" ]; then
    rm -rf .venv
    make_venv
fi
rm -f .venv/ready .venv/dev
echo "setup: installing mlx_autoresearch$extras into .venv, which takes a few minutes the first time"
if command -v uv >/dev/null; then
    uv pip install --quiet --python .venv/bin/python -e ".$extras"
else
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$extras"
fi
if [ "${1:-}" = dev ]; then touch .venv/dev; fi
echo "backend=$backend" >.venv/ready
