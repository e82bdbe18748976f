#!/bin/sh
# Makes .venv and installs what the commands need; with --app also what the local app needs; with
# --dev also what the checks, the app, Ray and ONNX need. Does nothing if everything is installed.
# PYTHON=python3.12 chooses another Python.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
PYTHON=${PYTHON:-python3}
wanted=$(cat requirements*.txt | cksum)
dev=0
if [ "${1:-}" = --app ] || [ -e .venv/.app ]; then dev=app; fi
if [ "${1:-}" = --dev ] || [ -e .venv/.dev ]; then dev=1; fi
# If Python was removed or updated since, the links in the environment are broken.
works() { .venv/bin/python -c "import $1" 2>/dev/null; }
if [ "$(cat .venv/.installed 2>/dev/null)" = "$wanted $dev" ] && works sys; then exit 0; fi

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "error: Python 3.11 to 3.13 is needed, and $PYTHON is another version; set PYTHON=python3.12" >&2; exit 2; }
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing the Debian package python3-venv" >&2
        apt-get update -qq && apt-get install -y -qq python3-venv
    else
        echo "error: $PYTHON cannot make environments; install python3-venv" >&2; exit 2
    fi
fi
works pip || "$PYTHON" -m venv --clear .venv
# A pip.conf may tell pip to install for the user instead.
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 .venv/bin/python -m pip install --quiet"
echo "installing into .venv (PyTorch is large; the first time takes minutes)" >&2
$pip -r requirements.txt
$pip --no-deps -r requirements-files.txt
case "$dev" in
    app) $pip -r requirements-app.txt; touch .venv/.app ;;
    1) $pip -r requirements-dev.txt -r requirements-app.txt -r requirements-ray.txt \
           -r requirements-onnx.txt; touch .venv/.dev ;;
esac
echo "$wanted $dev" > .venv/.installed
