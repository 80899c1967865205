# Virtual environments for comparisons with Python packages, below the build folder, each made once.
# Sourced by bash; every failure to make one ends the test as skipped (77) with its reason.
#   if begin_venv FOLDER; then install PACKAGES...; end_venv; fi
#   "$venv/bin/python" ...

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
