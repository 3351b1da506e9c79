#!/bin/sh
# Fetches yaml-language-server, which editors show machine files with, into build/yaml-server for its test. Says why when
# it cannot; the test is then skipped.
set -u

place=build/yaml-server
[ -e "$place/node_modules/yaml-language-server" ] && exit 0
command -v npm >/dev/null 2>&1 || exit 0
mkdir -p "$place"
npm install --silent --no-audit --no-fund --no-save --prefix "$place" yaml-language-server@1 >"$place/log" 2>&1 ||
    echo "no yaml-language-server: $(tail -n 1 "$place/log")" >&2
exit 0
