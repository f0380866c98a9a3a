#!/bin/sh
# verify.sh SERVICE SOCKET: does systemd accept the units? The service's program need not be installed:
# a copy of the unit starts /bin/true instead. Exit 77: systemd-analyze is not here.
set -eu
command -v systemd-analyze >/dev/null 2>&1 || { echo "systemd-analyze is not installed"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "$1" > "$dir/statecached.service"
cp "$2" "$dir/statecached.socket"
grep -q '^ExecStart=/bin/true' "$dir/statecached.service"
if ! said=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$dir/statecached.service" \
    "$dir/statecached.socket" 2>&1); then
  echo "$said"
  exit 1
fi
# Unknown keys are only warnings to systemd; to us they are mistakes. Other units' faults are not ours.
if echo "$said" | grep -F 'statecached'; then exit 1; fi
echo "accepted"
