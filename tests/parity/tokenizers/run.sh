#!/usr/bin/env bash
# run.sh BUILD-FOLDER TRANSFORMERS-VERSION TOOL [STRINGS | measure]: the checks of this folder, with so
# many strings a style (default: check_tokenizers.py's), or measure.py, in a virtual environment with
# that version (../venv.sh). Exit 77 (skipped) with the reason when there is no Python or pip cannot
# install.
set -u
folder=$1 version=$2 tool=$3 what=${4:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../venv.sh"

transformers_venv "$folder" "$version"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
if [[ $what == measure ]]; then
  exec "$venv/bin/python" -B "$here/measure.py" "$tool"
fi
"$venv/bin/python" -B "$here/check_templates.py" "$tool" || exit 1
exec "$venv/bin/python" -B "$here/check_tokenizers.py" "$tool" ${what:+"$what"}
