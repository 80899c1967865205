#!/usr/bin/env bash
# run.sh BUILD-FOLDER TRANSFORMERS-VERSION SCRIPT TOOL: SCRIPT in a virtual environment with that version.
# The build's own torch is used if that Python can load it ($THRESHER_TORCH_PACKAGE), else one is
# installed. Exit 77 (skipped) with the reason when there is no Python or pip cannot install.
set -u
folder=$1 version=$2 script=$3 tool=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
torch=2.13.0
source "$here/../venv.sh"

if begin_venv "$folder/transformers-$version"; then
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
  end_venv
fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$venv/bin/python" -B "$here/$script" --tool "$tool"
