# libtorch: the pinned wheel in a private environment below the build folder, or an installed one
# that was named (THRESHER_TORCH), comes with the machine (bundle, --no-root) or is all there is (no network). Sets TORCH_DIR, the folder that
# holds share/cmake/Torch, and TORCH_WHAT, the words for it.
TORCH_VERSION=2.13.0
TORCH_SIZE="190 MB"
TORCH_MINOR_FIRST=4
TORCH_MINOR_LAST=13

has_cuda_toolkit() { "${CLEAN[@]}" sh -c 'command -v nvcc' >/dev/null 2>&1; }

# torch_probe FOLDER: true if it can be built against. Sets PROBE_VERSION, PROBE_BUILD ("CPU" or
# "CUDA 12.6") and, if not usable, PROBE_ERROR.
torch_probe() {
  local folder=$1 text=""
  PROBE_VERSION="" PROBE_BUILD=CPU PROBE_ERROR=""
  if [[ ! -f $folder/share/cmake/Torch/TorchConfig.cmake ]]; then
    PROBE_ERROR="no share/cmake/Torch/TorchConfig.cmake in it" && return 1
  fi
  [[ -f $folder/version.py ]] && text=$(<"$folder/version.py")
  if [[ $text =~ __version__\ *=\ *[\'\"]([^\'\"]+) ]]; then
    PROBE_VERSION=${BASH_REMATCH[1]}
  elif [[ -f $folder/build-version ]]; then
    PROBE_VERSION=$(<"$folder/build-version")
  fi
  if [[ ! $PROBE_VERSION =~ ^2\.([0-9]+)\. ]] ||
    ((BASH_REMATCH[1] < TORCH_MINOR_FIRST || BASH_REMATCH[1] > TORCH_MINOR_LAST)); then
    PROBE_ERROR="its version is ${PROBE_VERSION:-unknown}; usable: 2.$TORCH_MINOR_FIRST to 2.$TORCH_MINOR_LAST" && return 1
  fi
  # The constructor of c10::Error takes a std::string; its mangled name tells which one.
  if ! grep -qa 'c105ErrorC[12]ENS_14SourceLocationENSt7__cxx11' "$folder/lib/libc10.so" 2>/dev/null; then
    PROBE_ERROR="it is built without the C++11 ABI of std::string" && return 1
  fi
  if [[ -e $folder/lib/libtorch_cuda.so ]]; then
    PROBE_BUILD=CUDA
    [[ $text =~ cuda:[^=]*=\ *\'([0-9.]+)\' ]] && PROBE_BUILD="CUDA ${BASH_REMATCH[1]}"
    if ! has_cuda_toolkit; then
      PROBE_ERROR="it is a $PROBE_BUILD build and there is no CUDA toolkit (nvcc)" && return 1
    fi
  fi
}

torch_use() {
  TORCH_DIR=$1
  TORCH_WHAT="torch $PROBE_VERSION ($PROBE_BUILD), $2"
  found "$TORCH_WHAT"
}

# Programs are built without libtorch, except where there is a CUDA toolkit: its NCCL is used.
torch_is_missing() {
  [[ -z $TORCH_DIR ]] && { ((PARITY)) || has_cuda_toolkit; }
}

# Looks at what is there already; TORCH_DIR stays empty if nothing is.
torch_find() {
  local folder named=${THRESHER_TORCH:-}
  TORCH_DIR="" TORCH_WHAT="libtorch not needed" VENV=$SHARED_DIR/venv
  if [[ -n $named ]]; then
    for folder in "$named" "$named/torch" "$named"/lib/python3*/site-packages/torch; do
      [[ -f $folder/share/cmake/Torch/TorchConfig.cmake ]] && break
      folder=$named
    done
    torch_probe "$folder" || fail "THRESHER_TORCH=$named cannot be used: $PROBE_ERROR" \
      "unset THRESHER_TORCH   (torch $TORCH_VERSION is then fetched)"
    torch_use "$(readlink -f "$folder")" "named by THRESHER_TORCH"
    return
  fi
  if [[ -f $VENV/complete && $(<"$VENV/complete") == "$TORCH_VERSION" ]]; then
    for folder in "$VENV"/lib/python3*/site-packages/torch; do
      torch_probe "$folder" && torch_use "$folder" "private wheel" && return
    done
  fi
  if [[ -f $SHARED_DIR/torch.installed ]]; then
    folder=$(<"$SHARED_DIR/torch.installed")
    torch_probe "$folder" && torch_use "$folder" "installed at $folder" && return
  fi
  if [[ -n $BUNDLE ]] || ((NO_ROOT && ${#MISSING[@]})); then
    torch_find_installed
  fi
  return 0
}

# The torch of the system's Python, else of the one on the path; remembered. False if none can be
# used; TORCH_TRIED then says why.
torch_find_installed() {
  local python folder
  TORCH_TRIED=""
  for python in /usr/bin/python3 "$(command -v python3)"; do
    [[ -x $python ]] || continue
    folder=$("${CLEAN[@]}" "$python" -c 'import importlib.util as u, os; s = u.find_spec("torch")
print(os.path.dirname(s.origin) if s and s.origin else "")' 2>/dev/null)
    [[ -n $folder ]] || continue
    if torch_probe "$folder"; then
      printf '%s\n' "$folder" >"$SHARED_DIR/torch.installed"
      torch_use "$folder" "installed at $folder"
      return 0
    fi
    TORCH_TRIED+="; $folder: $PROBE_ERROR"
  done
  return 1
}

# The first Python that can make a virtual environment: the system's own, else the one on the path.
torch_python() {
  local python
  for python in /usr/bin/python3 "$(command -v python3)"; do
    [[ -x $python ]] && "${CLEAN[@]}" "$python" -c 'import venv, ensurepip' 2>/dev/null && REPLY=$python && return 0
  done
  return 1
}

# Runs pip of the private environment, with the user's own pip configuration, showing how much has
# arrived.
torch_pip() {
  local index=() used
  [[ -n ${THRESHER_TORCH_INDEX:-} ]] && index=(--extra-index-url "$THRESHER_TORCH_INDEX")
  "${CLEAN[@]}" TMPDIR="$SHARED_DIR/pip-tmp" PIP_CACHE_DIR="${PIP_CACHE_DIR:-$SHARED_DIR/pip-cache}" \
    "$VENV/bin/python" -m pip "$@" --no-deps --disable-pip-version-check --no-input \
    ${index[@]+"${index[@]}"} >>"$LOG" 2>&1 </dev/null &
  CHILD=$!
  while kill -0 "$CHILD" 2>/dev/null; do
    used=$(du -sm --total "$VENV" "$SHARED_DIR/pip-tmp" 2>/dev/null | tail -1)
    progress "torch $TORCH_VERSION: fetching ($TORCH_SIZE) and unpacking, ${used%%[!0-9]*} MB of about 780"
    sleep 0.5
  done
  used=$CHILD CHILD=""
  wait "$used"
}

# True if the wheel that pip would take is a CUDA build, told from its dependencies before fetching
# it. False as well when this pip is too old to say; then the probe after the installation tells.
torch_would_be_cuda() {
  torch_pip install --dry-run --quiet --report "$SHARED_DIR/pip-tmp/report.json" "torch==$TORCH_VERSION" || return 1
  grep -qaE '"(nvidia|cuda)[-_][a-z]' "$SHARED_DIR/pip-tmp/report.json"
}

# Without a toolkit only a CPU build is of use: it is asked for by name, and any other one is refused
# before its gigabytes are fetched.
torch_fetch() {
  has_cuda_toolkit || {
    torch_pip install --progress-bar off "torch==$TORCH_VERSION+cpu" && return 0
    torch_would_be_cuda && return 2
  }
  torch_pip install --progress-bar off "torch==$TORCH_VERSION"
}

torch_install() {
  local status=0 folder
  torch_python || fail "no python3 that can make a virtual environment" "apt-get install python3-venv" "$COMMAND_LINE" \
    "THRESHER_TORCH=/path/to/an/installed/torch $COMMAND_LINE"
  progress "torch $TORCH_VERSION: making its environment with $REPLY"
  rm -f "$VENV/complete"
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$VENV"
    "${CLEAN[@]}" "$REPLY" -m venv "$VENV" >>"$LOG" 2>&1 || fail "$REPLY -m venv failed" "$COMMAND_LINE"
  fi
  mkdir -p "$SHARED_DIR/pip-tmp"
  torch_fetch || status=$?
  rm -rf "$SHARED_DIR/pip-tmp"
  ((status == 2)) && torch_refuse_cuda
  ((status == 0)) || { torch_fall_back && return 0; }
  for folder in "$VENV"/lib/python3*/site-packages/torch; do
    if ! torch_probe "$folder"; then
      [[ $PROBE_ERROR == *"no CUDA toolkit"* ]] && rm -rf "$VENV" && torch_refuse_cuda
      fail "the wheel torch $TORCH_VERSION cannot be used: $PROBE_ERROR" "rm -r $VENV and run $COMMAND_LINE again"
    fi
    torch_use "$folder" "private wheel"
  done
  printf '%s\n' "$TORCH_VERSION" >"$VENV/complete"
}

torch_refuse_cuda() {
  fail "pip offers torch $TORCH_VERSION only as a CUDA build, and there is no CUDA toolkit (nvcc) to build with" \
    "THRESHER_TORCH_INDEX=URL $COMMAND_LINE   (URL: the index of CPU wheels that PyTorch's installation page names)" \
    "or install a CUDA toolkit, or name an installed torch: THRESHER_TORCH=/path/to/torch $COMMAND_LINE"
}

# pip could not fetch the wheel (no network, as a rule): an installed torch will do, if it passes.
torch_fall_back() {
  local why
  why=$(grep -a '^ERROR' "$LOG" | tail -1)
  if torch_find_installed; then
    detail "pip could not fetch torch $TORCH_VERSION (${why:-see the log}); using the installed one"
    return 0
  fi
  fail "pip could not fetch torch $TORCH_VERSION: ${why:-see the log}$TORCH_TRIED" "$COMMAND_LINE   (with a network)" \
    "THRESHER_TORCH=/path/to/an/installed/torch $COMMAND_LINE"
}
