# Virtual environments for comparisons with Python packages, below the build folder, each made once.
# Sourced by bash; every failure to make one ends the test as skipped (77) with its reason.
#   if begin_venv FOLDER; then install PACKAGES...; end_venv; fi
#   "$venv/bin/python" ...
# Tests that share an environment run one after the other (RESOURCE_LOCK).

skip() {
  printf 'SKIPPED: %s\n' "$1"
  exit 77
}

# Sets venv and log, and makes an empty environment; false when it is complete already.
begin_venv() {
  venv=$1 log=$1.log
  [[ ! -e $venv/complete ]] || return 1
  command -v python3 >/dev/null || skip "there is no python3"
  mkdir -p "$(dirname "$venv")"
  rm -rf "$venv" "$log"
  python3 -m venv "$venv" >"$log" 2>&1 || skip "python3 -m venv failed: $(tail -n 1 "$log")"
}

install() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install --retries 5 "$@" >>"$log" 2>&1 ||
    skip "pip cannot install $*: $(grep -i '^error' "$log" | tail -n 1)"
}

end_venv() {
  touch "$venv/complete"
}

# transformers_venv FOLDER VERSION: FOLDER/transformers-VERSION, with the tokenizers package that it
# needs, the chat templates of trl, and torch: the build's own if that Python can load it
# ($THRESHER_TORCH_PACKAGE), else one is installed.
transformers_venv() {
  local packages torch=2.13.0
  begin_venv "$1/transformers-$2" || return 0
  install "transformers==$2" tokenizers safetensors numpy jinja2
  install --no-deps trl==1.16.0 # carries the models' chat templates as files
  if [[ -n ${THRESHER_TORCH_PACKAGE:-} ]]; then
    for packages in "$venv"/lib/python3*/site-packages; do
      dirname "$THRESHER_TORCH_PACKAGE" >"$packages/torch_of_the_build.pth"
    done
    # The build takes the wheel alone; Transformers reaches parts of torch that need these.
    install sympy networkx fsspec filelock typing_extensions
  fi
  if ! "$venv/bin/python" -c 'import torch.distributed.tensor' >>"$log" 2>&1; then
    rm -f "$venv"/lib/python3*/site-packages/torch_of_the_build.pth
    install "torch==$torch"
  fi
  end_venv
}

# peft_venv FOLDER VERSION PEFT: FOLDER/peft-PEFT, which borrows the packages of transformers_venv.
peft_venv() {
  local packages base
  transformers_venv "$1" "$2"
  base=$venv
  begin_venv "$1/peft-$3" || return 0
  for packages in "$venv"/lib/python3*/site-packages; do
    for base in "$base"/lib/python3*/site-packages; do
      echo "import site; site.addsitedir('$base')" >"$packages/transformers.pth"
    done
  done
  install --no-deps "peft==$3" accelerate==1.15.0 psutil
  end_venv
}

# trl_venv FOLDER VERSION TRL: FOLDER/trl-TRL, which borrows the packages of transformers_venv and has what else the
# trainers of trl import.
trl_venv() {
  local packages base
  transformers_venv "$1" "$2"
  base=$venv
  begin_venv "$1/trl-$3" || return 0
  for packages in "$venv"/lib/python3*/site-packages; do
    for base in "$base"/lib/python3*/site-packages; do
      echo "import site; site.addsitedir('$base')" >"$packages/transformers.pth"
    done
  done
  install --no-deps "trl==$3" accelerate==1.15.0 verl==0.9.1 # of verl files alone are used
  install psutil datasets pandas pyarrow
  end_venv
}
