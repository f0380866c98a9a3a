#!/usr/bin/env bash
# Compares what libstatecache.so offers with client/c/statecache.abi. A difference means that programs built
# against an older library may break: fields and functions are only added, at the end; anything else needs another
# SONAME. `--update`: write the dump instead.
set -euo pipefail
library=$1 layout=$2 layout_cpp=$3 dump=$4
now=$(mktemp)
trap 'rm -f "$now"' EXIT
{
  objdump -p "$library" | sed -n 's/^ *SONAME */soname /p'
  nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print "symbol " $3 }' | LC_ALL=C sort
  "$layout"
  "$layout_cpp"
} >"$now"
if [ "${5:-}" = --update ]; then
  cp "$now" "$dump"
  exit 0
fi
diff -u "$dump" "$now"
