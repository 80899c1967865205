# The bootstrap, sourced by launch/thresher and tests/run. The caller sets ROOT, ASSUME_YES, NO_ROOT,
# PHASES, PARITY (1: the parity tests are built, which need libtorch) and COMMAND_LINE (what to type
# to come here again).
for part in say environment state system bundle packages torch build; do
  source "$ROOT/launch/bootstrap/$part.sh"
done
unset part

# Names of everything below; touches nothing.
bootstrap_settings() {
  PRESET=${THRESHER_PRESET:-release}
  BUILD_DIR=${THRESHER_BUILD_DIR:-$ROOT/build/$PRESET}
  [[ $BUILD_DIR == /* ]] || BUILD_DIR=$PWD/$BUILD_DIR
  # What the presets share (libtorch, compiler cache, lock) lies beside them.
  case $BUILD_DIR in
    "$ROOT"/build/*) SHARED_DIR=$ROOT/build ;;
    *) SHARED_DIR=$BUILD_DIR ;;
  esac
  PROGRAM=$BUILD_DIR/launch/thresher-cli
  LOG=/dev/null
}

# Phases 1 to 3: checks the system, installs what is missing (asking first), builds the targets
# named. Returns only with everything built and the lock held; otherwise exits 3 (75 if interrupted).
bootstrap_prepare() {
  refuse_inside_a_job
  trap 'interrupted' INT TERM HUP
  phase 1 system
  bundle_find
  system_check
  scrub_report
  phase 2 packages
  if state_open; then
    state_lock
  fi
  packages_find_missing
  torch_find
  if ((${#MISSING[@]})) || torch_is_missing; then
    packages_consent
    state_require
    packages_install
    torch_is_missing && torch_install
  fi
  phase_done "$PACKAGES_WHAT; $TORCH_WHAT"
  state_require
  phase 3 build
  build_configure
  build_targets "$@"
  phase_done "$BUILD_SUMMARY"
  trap - INT TERM HUP
}
