# Messages. All go to standard error: "[phase/phases] name  text".
PHASE_LABEL=""
PROGRESS_AT=-10
FOUND=()
[[ -t 2 ]] && TERMINAL=1 || TERMINAL=0

# phase NUMBER NAME: what the following messages belong to.
phase() {
  printf -v PHASE_LABEL '[%d/%d] %-9s' "$1" "$PHASES" "$2"
  PROGRESS_AT=-10
}

# progress TEXT: how far the phase is. Redrawn in place at a terminal, else a line every 10 s.
progress() {
  state_note "$PHASE_LABEL $1"
  if ((TERMINAL)); then
    printf '\r\033[K%.*s' "$((${COLUMNS:-80} - 1))" "$PHASE_LABEL $1" >&2
  elif ((SECONDS - PROGRESS_AT >= 10)); then
    PROGRESS_AT=$SECONDS
    printf '%s %s\n' "$PHASE_LABEL" "$1" >&2
  fi
}

# phase_done TEXT: the line of the phase that stays.
phase_done() {
  ((TERMINAL)) && printf '\r\033[K' >&2
  printf '%s %s\n' "$PHASE_LABEL" "$1" >&2
}

# detail TEXT: a line below the phase.
detail() {
  ((TERMINAL)) && printf '\r\033[K' >&2
  printf '      %s\n' "$1" >&2
}

# found TEXT: remembered, and shown should anything fail later.
found() { FOUND+=("$1"); }

# fail MESSAGE [NEXT COMMAND]...: says what is wrong, what was found, what to type; exit 3.
fail() {
  local message=$1 next
  shift
  phase_done "failed: $message"
  ((${#FOUND[@]})) && detail "found  $(IFS=';' && printf '%s' "${FOUND[*]/#/ }")"
  for next in "$@"; do detail "next   $next"; done
  [[ $LOG != /dev/null ]] && detail "log    $LOG"
  exit 3
}

interrupted() {
  trap - INT TERM HUP
  [[ -n ${CHILD:-} ]] && kill "$CHILD" 2>/dev/null && wait "$CHILD" 2>/dev/null
  phase_done "stopped by request; nothing is lost, the same command goes on from here"
  exit 75
}

# duration SECONDS -> REPLY, "45 s" or "6 min 12 s".
duration() {
  if (($1 < 60)); then REPLY="$1 s"; else REPLY="$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# megabytes BYTES -> REPLY, rounded up.
megabytes() { REPLY="$((($1 + 999999) / 1000000)) MB"; }
