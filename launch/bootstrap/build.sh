# Configures through the preset and builds, showing how far it is.

# Jobs that fit the memory too: a file that includes libtorch takes up to 2 GB.
build_jobs() {
  local key value rest cores
  REPLY=${CMAKE_BUILD_PARALLEL_LEVEL:-}
  [[ $REPLY =~ ^[1-9][0-9]*$ ]] && return
  cores=$(nproc)
  REPLY=$cores
  while read -r key value rest; do
    [[ $key == MemAvailable: ]] && ((value / 2000000 < cores)) && REPLY=$((value / 2000000))
  done </proc/meminfo
  ((REPLY >= 1)) || REPLY=1
}

build_configure() {
  local version wanted unusable have="" without=()
  version=$("${CLEAN[@]}" g++ -dumpfullversion 2>/dev/null)
  compiler_supported "${version:-none}" || {
    kept CXX || fail "g++ is version ${version:-unknown}; supported: 11 to 14" "apt-get install g++" "$COMMAND_LINE"
  }
  found "g++ $version"
  build_check_disk
  stamp_begin
  bundle_key
  wanted="$PRESET $TORCH_DIR $version${REPLY:+ $REPLY}"
  [[ -f $BUILD_DIR/bootstrap/configured ]] && have=$(<"$BUILD_DIR/bootstrap/configured")
  [[ -f $BUILD_DIR/build.ninja && $have == "$wanted" ]] && return
  [[ -n $TORCH_DIR ]] || without=(-DTHRESHER_PARITY=OFF)
  progress "configuring ($PRESET)"
  build_mark=$(stat -c %s "$LOG")
  rm -f "$BUILD_DIR/bootstrap/configured"
  # Another libtorch or bundle leaves its paths in the cache: it starts afresh, the objects stay.
  [[ -n $have && $have != "$wanted" ]] && rm -f "$BUILD_DIR/CMakeCache.txt"
  (cd "$ROOT" && exec "${CLEAN[@]}" cmake --preset "$PRESET" -B "$BUILD_DIR" -DTHRESHER_TORCH="$TORCH_DIR" -DTHRESHER_BUNDLE="$BUNDLE" ${without[@]+"${without[@]}"}) >>"$LOG" 2>&1 </dev/null ||
    fail "cmake: $(build_log | grep -a -m1 -A2 '^CMake Error' | tr -s '\n ' ' ')" "$COMMAND_LINE"
  unusable=$(build_log | grep -a -m1 -o 'CUDA: .* does not work with .*') && detail "$unusable"
  printf '%s\n' "$wanted" >"$BUILD_DIR/bootstrap/configured"
}

# What the step that began at build_mark has written to the log.
build_log() { tail -c "+$((build_mark + 1))" "$LOG"; }

build_check_disk() {
  local free
  free=$(df -Pk "$BUILD_DIR" | awk 'NR == 2 { print int($4 / 1000) }')
  [[ -f $BUILD_DIR/build.ninja ]] || ((free >= 2000)) ||
    fail "the build needs about 2000 MB below $BUILD_DIR, which has $free MB" "THRESHER_BUILD_DIR=/a/larger/disk $COMMAND_LINE"
}

# build_targets TARGET...: sets BUILD_SUMMARY. On failure shows the first error. A compiler that
# crashed is asked once more: one that maps a precompiled header to an unlucky address does.
build_targets() {
  local files=0 began=$SECONDS
  build_mark=$(stat -c %s "$LOG")
  run_ninja "$@" || { compiler_crashed && run_ninja "$@"; } || build_failed "$@"
  CHILD=""
  duration $((SECONDS - began))
  if ((files)); then BUILD_SUMMARY="$files files, $REPLY"; else BUILD_SUMMARY="up to date"; fi
}

# run_ninja TARGET...: sets the caller's `files`, counts from its `began`.
run_ninja() {
  local line part="" done_files=0 status ninja
  build_jobs
  ninja=("${CLEAN[@]}" "NINJA_STATUS=@%f/%t " ninja -C "$BUILD_DIR" -j "$REPLY" "$@")
  exec {ninja_out}< <(exec "${ninja[@]}" 2>&1 </dev/null)
  CHILD=$!
  while true; do
    IFS= read -r -t 1 -u "$ninja_out" line
    status=$?
    ((status > 0 && status <= 128)) && break
    part+=$line
    if ((status == 0)); then
      line=$part part=""
      printf '%s\n' "$line" >>"$LOG"
    fi
    if ((status == 0)) && [[ $line =~ ^@([0-9]+)/([0-9]+)\  ]]; then
      done_files=${BASH_REMATCH[1]} files=${BASH_REMATCH[2]}
    fi
    build_progress "$done_files" "$files" "$((SECONDS - began))"
  done
  exec {ninja_out}<&-
  wait "$CHILD"
}

compiler_crashed() {
  build_log | grep -qE 'internal compiler error|terminated program' || return 1
  detail "the compiler crashed; building once more"
}

# build_progress DONE ALL SECONDS: with the time left once there is something to judge it by.
build_progress() {
  local left=""
  if (($2 == 0)); then progress "looking what has changed" && return; fi
  if (($1 >= 10 && $3 >= 10)); then
    duration $((($2 - $1) * $3 / $1))
    left=", about ${REPLY/ min * s/ min} left"
  fi
  progress "$1/$2 files$left"
}

build_failed() {
  CHILD=""
  # Ninja prints "FAILED: file", the command, then what the command said.
  build_log | awk '
    /^FAILED:/ && !first { first = NR }
    first && (/^@/ || /^ninja: /) { exit }
    first && NR > first + 1 && ++lines <= 25 { print "      " substr($0, 1, 200) }' >&2
  fail "the build stopped" "ninja -C $BUILD_DIR $*   shows it again; $COMMAND_LINE goes on from here"
}
