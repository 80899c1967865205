# What the bootstrap keeps between starts, all below the build folder: the lock, the log, and the
# stamp that lets a start with nothing to do run at once.
LOCK=""
STATUS_FILE=""

# Makes the folders; false if they cannot be written.
state_open() {
  mkdir -p "$BUILD_DIR/bootstrap" "$SHARED_DIR" 2>/dev/null && [[ -w $BUILD_DIR/bootstrap && -w $SHARED_DIR ]] || return 1
  { exec {LOCK}>>"$SHARED_DIR/bootstrap.lock"; } 2>/dev/null || return 1
}

state_require() {
  [[ -n $LOCK ]] || fail "cannot write ${BUILD_DIR#"$ROOT"/}" "THRESHER_BUILD_DIR=/a/folder/of/yours $COMMAND_LINE"
}

# One start installs and builds at a time; the others wait here and show what it is doing.
state_lock() {
  local note since=$SECONDS
  until flock -n "$LOCK"; do
    note=""
    read -r note 2>/dev/null <"$SHARED_DIR/bootstrap.status"
    duration $((SECONDS - since))
    progress "waiting $REPLY for another start, which is at: ${note:-its beginning}"
    flock -w 1 "$LOCK" && break
  done
  STATUS_FILE=$SHARED_DIR/bootstrap.status
  LOG=$BUILD_DIR/bootstrap/log
  printf '\n==== %s  %s\n' "$(date -u +%FT%TZ)" "$COMMAND_LINE" >>"$LOG"
  state_note "pid $$"
}

state_note() { [[ -n $STATUS_FILE ]] && printf '%s (pid %d)\n' "$1" $$ >"$STATUS_FILE"; return 0; }

state_close() { [[ -n $LOCK ]] && exec {LOCK}>&-; LOCK="" STATUS_FILE=""; }

# What a build depends on besides the contents of the sources.
stamp_key() {
  local head
  bundle_key
  head=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null)
  REPLY="$PRESET ${head:-none} $ROOT torch=${THRESHER_TORCH:-} bundle=$REPLY"
}

# True if the program is built and no source has changed since: changed time, not modified time, so
# that an older file put in place of a newer one counts; folders too, so that a removed one counts.
stamp_is_current() {
  local stamp=$BUILD_DIR/bootstrap/stamp key sources=(CMakeLists.txt CMakePresets.json launch) folder
  [[ -x $PROGRAM && -f $stamp ]] || return 1
  bundle_find
  key=$(<"$stamp")
  stamp_key
  [[ $key == "$REPLY" ]] || return 1
  for folder in common kernels actor broker learner; do
    [[ -d $ROOT/$folder ]] && sources+=("$folder")
  done
  [[ -z $(cd "$ROOT" && find "${sources[@]}" -newercm "$stamp" ! -name '*.md' -print -quit 2>&1) ]]
}

# The stamp carries the time at which the build began: what changed meanwhile is built next time.
stamp_begin() { rm -f "$BUILD_DIR/bootstrap/stamp" && : >"$BUILD_DIR/bootstrap/began"; }
stamp_write() {
  stamp_key
  printf '%s\n' "$REPLY" >"$BUILD_DIR/bootstrap/stamp.new"
  touch -r "$BUILD_DIR/bootstrap/began" "$BUILD_DIR/bootstrap/stamp.new"
  mv "$BUILD_DIR/bootstrap/stamp.new" "$BUILD_DIR/bootstrap/stamp"
}
