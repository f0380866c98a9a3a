#!/usr/bin/env bash
# Installs the Debian packages that building needs, those that are missing only. `tests`: what the tests need too.
# Says nothing when all is there. On another system it names the packages and goes on.
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config ccache
  liburing-dev librocksdb-dev libboost-dev flatbuffers-compiler libflatbuffers-dev libsystemd-dev
  libspdlog-dev libfmt-dev libxxhash-dev libssl-dev libexpected-dev
  libtomlplusplus-dev libcli11-dev nlohmann-json3-dev zlib1g-dev
)
if [ "${1:-}" = tests ]; then packages+=(libgtest-dev util-linux systemd python3 python3-numpy python3-pip python3-setuptools python3-wheel python3-pytest); fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "not a Debian system; building needs what Debian calls: ${packages[*]}" >&2
  exit 0
fi
missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "please install as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
# The package lists may be absent or old: fetch them only when it does not work without.
if ! install; then
  "${as_root[@]}" apt-get update >>"$log" 2>&1 || true
  if ! install; then
    tail -n 20 "$log" >&2
    echo "cannot install: ${missing[*]}" >&2
    exit 1
  fi
fi
