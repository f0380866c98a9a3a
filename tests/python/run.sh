#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment, runs pytest there. Exit 77: what it needs is missing.
set -euo pipefail
root=$1 library=$2 bin=$3 sanitizer=${4:-}
# setuptools must come before pip.
needed="setuptools pip wheel numpy pytest"
python=
# The distribution's, where another one comes first in PATH without these.
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c "import ${needed// /, }" 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "skipped: no python3 with $needed (Debian: python3-numpy python3-pip python3-setuptools python3-wheel python3-pytest)"
  exit 77
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/statecache-python-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cp -r "$root/client/python" "$dir/source"
# Nothing is fetched: the build requirements are the system's.
STATECACHE_LIBRARY=$library "$python" -m pip wheel --quiet --no-index --no-deps --no-build-isolation \
  --disable-pip-version-check -w "$dir/wheels" "$dir/source"
"$python" -m venv --system-site-packages --without-pip "$dir/env"
"$python" -m pip --quiet --disable-pip-version-check --python "$dir/env/bin/python" install --no-index --no-deps \
  "$dir"/wheels/statecache-*.whl
export STATECACHED_BIN_DIR=$bin STATECACHE_ABI=$root/client/c/statecache.abi PYTHONDONTWRITEBYTECODE=1
unset STATECACHE_LIBRARY PYTHONPATH
if [ -n "$sanitizer" ]; then
  # The interpreter is not instrumented: the run-time library comes first, and its leaks are not ours.
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
  export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0
fi
cd "$root/tests/python"
"$dir/env/bin/python" -m pytest -q -p no:cacheprovider -ra .
