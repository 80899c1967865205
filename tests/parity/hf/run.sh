#!/usr/bin/env bash
# run.sh BUILD-FOLDER TRANSFORMERS-VERSION TOOL: check.py in a virtual environment with that version.
# The build's own torch is used if that Python can load it ($THRESHER_TORCH_PACKAGE), else one is
# installed. Exit 77 (skipped) with the reason when there is no Python or pip cannot install.
set -u
folder=$1 version=$2 tool=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$folder/transformers-$version
log=$venv.log
torch=2.13.0

skip() {
  printf 'SKIPPED: %s\n' "$1"
  exit 77
}

install() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install --retries 1 "$@" >>"$log" 2>&1 ||
    skip "pip cannot install $*: $(grep -i '^error' "$log" | tail -n 1)"
}

if [[ ! -e $venv/complete ]]; then
  command -v python3 >/dev/null || skip "there is no python3"
  mkdir -p "$folder"
  rm -rf "$venv" "$log"
  python3 -m venv "$venv" >"$log" 2>&1 || skip "python3 -m venv failed: $(tail -n 1 "$log")"
  install "transformers==$version" tokenizers safetensors numpy
  if [[ -n ${THRESHER_TORCH_PACKAGE:-} ]]; then
    for packages in "$venv"/lib/python3*/site-packages; do
      dirname "$THRESHER_TORCH_PACKAGE" >"$packages/torch_of_the_build.pth"
    done
    # The build takes the wheel alone; Transformers reaches parts of torch that need these.
    install sympy networkx jinja2 fsspec filelock typing_extensions
  fi
  if ! "$venv/bin/python" -c 'import torch.distributed.tensor' >>"$log" 2>&1; then
    rm -f "$venv"/lib/python3*/site-packages/torch_of_the_build.pth
    install "torch==$torch"
  fi
  touch "$venv/complete"
fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$venv/bin/python" -B "$here/check.py" --tool "$tool"
