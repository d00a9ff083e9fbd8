# Shared by the scripts beside it: where things are, and how an environment is made. Sourced, never run.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
tools="$top/.tools"
venv="$top/.venv"
export PATH="$tools/bin:$PATH"
# Certificates that this system trusts, as every other program here: institutes have authorities of their own.
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# A Python of at least 3.11 that this system has.
find_python() {
    for name in "${BUOY_PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14; do
        [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$name"; return; }
    done
    fail "no Python of at least 3.11 was found: install one, or set BUOY_PYTHON to its path"
}

# uv from PATH, else into .tools of this checkout. --target works on externally managed systems too (PEP 668),
# since nothing is put into the system's own Python.
ensure_uv() {
    command -v uv >/dev/null 2>&1 && return
    if [ ! -x "$tools/bin/uv" ]; then
        say "Installing uv into .tools (nothing outside this checkout is changed)"
        python=$(find_python)
        if "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip install --quiet --disable-pip-version-check --target "$tools/uv" uv
        elif "$python" -m venv "$tools/seed" >/dev/null 2>&1; then
            "$tools/seed/bin/python" -m pip install --quiet --disable-pip-version-check --target "$tools/uv" uv
        else
            fail "Python has neither pip nor venv: install python3-venv or python3-pip (apt install python3-venv), or uv"
        fi
        mkdir -p "$tools/bin"
        ln -sf "$tools/uv/bin/uv" "$tools/bin/uv"
    fi
}

# sync_venv FOLDER LOCK: exactly what the lock says, and this checkout in editable form; nothing if that is there already.
sync_venv() {
    ensure_uv
    [ "$(cat "$1/.lock" 2>/dev/null)" != "$(stamp "$2")" ] || return 0
    say "Setting up $(basename "$1") from $2"
    [ -x "$1/bin/python" ] || uv venv --quiet --python "$(find_python)" "$1"
    uv pip sync --quiet --compile-bytecode --python "$1/bin/python" --require-hashes "$top/$2"
    uv pip install --quiet --python "$1/bin/python" --no-deps --editable "$top"
    stamp "$2" > "$1/.lock"
}

# What an environment was made from: the lock's content, and what the project declares.
stamp() { cat "$top/$1" "$top/pyproject.toml" | sha256sum; }
