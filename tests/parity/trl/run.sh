#!/usr/bin/env bash
# run.sh BUILD-FOLDER TRANSFORMERS-VERSION TRL-VERSION SCRIPT TOOL: SCRIPT in a virtual environment with both
# (../venv.sh). Exit 77 (skipped) with the reason when there is no Python or pip cannot install.
set -u
folder=$1 version=$2 trl=$3 script=$4 tool=$5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../venv.sh"

trl_venv "$folder" "$version" "$trl"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1
exec "$venv/bin/python" -B "$here/$script" --tool "$tool"
