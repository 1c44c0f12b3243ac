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

# On a Mac an interpreter for Intel passes for a Python like any other, but there is no MLX for it.
native=
fits='import platform, sys
sys.exit(sys.version_info < (3, 11) or sys.argv[1] not in ("", platform.machine()))'
find_python() {
    for python in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3}; do
        if "$python" -c "$fits" "$native" 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

make_venv() {
    if command -v uv >/dev/null; then
        if [ -n "${PYTHON:-}" ] && [ -n "$native" ] && command -v "$PYTHON" >/dev/null; then
            find_python >/dev/null || fail "$PYTHON $wanted"
        fi
        # uv fetches an interpreter if need be
        uv venv --quiet --python "$(find_python || echo "${PYTHON:-$fetched}")" .venv
        return
    fi
    python=$(find_python) || fail "${PYTHON:-python3} $wanted: install one, or name it in PYTHON="
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python lacks venv: install it (Debian and Ubuntu: apt install python3-venv), or install uv"
    "$python" -m venv .venv
}

wanted="is not Python 3.11 or newer"
fetched=3.13
case $(uname -s)-$(uname -m) in
Darwin-arm64)
    backend= native=arm64 fetched=cpython-3.13-macos-aarch64
    wanted="is not Python 3.11 or newer for Apple silicon (arm64)"
    macos=$(sw_vers -productVersion)
    [ "${macos%%.*}" -ge 14 ] || fail "MLX needs macOS 14 or newer, and this is $macos: update it in System Settings"
    ;;
Darwin-*)
    if [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ]; then
        fail "this shell runs under Rosetta: open a native one (\`arch -arm64 zsh\`) and call make again"
    fi
    fail "MLX needs a Mac with Apple silicon, and this one has an Intel processor"
    ;;
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
if [ -n "$native" ]; then
    # In folders that iCloud keeps in step, macOS hides what is in .venv, and Python skips hidden .pth files.
    chflags -R nohidden .venv 2>/dev/null || true
    (cd / && PYTHONPATH= "$OLDPWD/.venv/bin/python" -c 'import mlx_autoresearch') ||
        fail "the package cannot be imported: move this folder out of those that iCloud keeps in step (Desktop, Documents)"
fi
if [ "${1:-}" = dev ]; then touch .venv/dev; fi
echo "backend=$backend" >.venv/ready
