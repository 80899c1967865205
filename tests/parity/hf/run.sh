#!/usr/bin/env bash
# run.sh BUILD-FOLDER TRANSFORMERS-VERSION SCRIPT TOOL [PEFT-VERSION]: SCRIPT in a virtual environment with that version
# (../venv.sh), and of PEFT. Exit 77 (skipped) with the reason when there is no Python or pip cannot install.
set -u
folder=$1 version=$2 script=$3 tool=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../venv.sh"

if [[ -n ${5:-} ]]; then peft_venv "$folder" "$version" "$5"; else transformers_venv "$folder" "$version"; fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$venv/bin/python" -B "$here/$script" --tool "$tool"
