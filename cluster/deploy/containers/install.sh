#!/bin/sh
# Installs what runs need, in the versions of the lock, and not what only developers need.
#   install.sh cpu|cuda
set -eu
accelerator=$1
lock=requirements/$accelerator.lock

# PyTorch publishes its CPU builds on an index of its own.
torch=
if [ "$accelerator" = cpu ]; then torch=--torch-backend=cpu; fi

pip install --no-cache-dir "$(grep '^uv==' "$lock")" "$(grep '^setuptools==' "$lock")"
# What vLLM asks for and nothing here needs is left out, as it is from the lock (requirements/lock.py).
uv pip compile pyproject.toml --extra "$accelerator" --extra s3 --extra otel --constraint "$lock" \
  --no-annotate --no-header $torch \
  | grep -vE '^(torchvision|torchaudio|torchcodec)==' >runtime.lock
if grep -vxFf "$lock" runtime.lock | grep -vE '^(--|nvidia-|cuda-)'; then
  echo "these are not in $lock" >&2
  exit 1
fi
grep -xFf "$lock" runtime.lock >pinned.lock
uv pip install --no-cache --no-deps $torch -r pinned.lock
