#!/bin/sh
# Installs what the browser tests need: tests/web/node_modules and Chromium. Does nothing if both are
# there. If they cannot be installed, one line says why and the browser tests are skipped; with
# REQUIRE_WEB=1 the script fails instead.
set -eu
cd "$(dirname "$(readlink -f "$0")")/../tests/web"

give_up() {
    if [ "${REQUIRE_WEB:-0}" = 1 ]; then echo "error: $1" >&2; exit 2; fi
    echo "$1; browser tests are skipped" >&2
    exit 0
}

missing=
command -v node >/dev/null && command -v npm >/dev/null || missing="nodejs npm"
[ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || missing="$missing chromium"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        give_up "missing: $missing (Node 18 or newer, Chromium)"
    fi
    echo "installing the Debian packages: $missing" >&2
    # shellcheck disable=SC2086 # names without spaces
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends $missing >/dev/null; } || give_up "apt-get failed for $missing"
fi
wanted=$(cksum < package-lock.json)
if [ "$(cat node_modules/.installed 2>/dev/null)" = "$wanted" ]; then exit 0; fi
npm ci --silent || give_up "npm ci failed in tests/web"
echo "$wanted" > node_modules/.installed
