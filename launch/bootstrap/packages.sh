# The system's packages: what is missing, whether it may be installed, installing it; or, where a
# bundle is in use, that instead of them.

# Fills PACKAGES, PURPOSE[name] and MISSING, and says in PACKAGES_WHAT what there is. With a bundle
# nothing is missing.
packages_find_missing() {
  local name purpose status
  declare -gA PURPOSE=() INSTALLED=()
  PACKAGES=() MISSING=()
  if [[ -n $BUNDLE ]]; then
    bundle_use
    PACKAGES_WHAT=$BUNDLE_WHAT
    return
  fi
  while read -r name purpose; do
    [[ -z $name || $name == \#* ]] && continue
    PACKAGES+=("$name") PURPOSE[$name]=$purpose
  done <"$ROOT/launch/packages.txt"
  while read -r name status; do
    [[ $status == installed ]] && INSTALLED[$name]=1
  done < <(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${PACKAGES[@]}" 2>/dev/null)
  for name in "${PACKAGES[@]}"; do
    [[ -z ${INSTALLED[$name]:-} ]] && MISSING+=("$name")
  done
  PACKAGES_WHAT="${#PACKAGES[@]} present"
}

# Asks apt what it would fetch. Fills SIZE[package] and TOTAL_BYTES; TOTAL_BYTES is 0 if apt does not
# know (no package lists yet).
packages_plan() {
  local uri file bytes rest
  declare -gA SIZE=()
  TOTAL_BYTES=0
  while read -r uri file bytes rest; do
    [[ $uri == \'*\' && $bytes =~ ^[0-9]+$ ]] || continue
    SIZE[${file%%_*}]=$bytes
    ((TOTAL_BYTES += bytes))
  done < <(LC_ALL=C apt-get install --print-uris -qq -y --no-install-recommends "${MISSING[@]}" 2>/dev/null)
}

# Who may install: root itself, others through sudo once they said yes.
packages_commands() {
  local sudo="sudo "
  ((EUID == 0)) && sudo=""
  COMMANDS=("${sudo}apt-get update" "${sudo}apt-get install -y --no-install-recommends ${MISSING[*]}")
}

may_not() {
  local reason=$1 next=()
  if ((${#MISSING[@]} && !NO_ROOT)); then
    packages_commands
    next=("${COMMANDS[@]}")
  fi
  next+=("$COMMAND_LINE --yes")
  ((${#MISSING[@]} && EUID != 0 && !NO_ROOT)) &&
    next+=("$COMMAND_LINE --no-root   (without them: brings the libraries below ${SHARED_DIR#"$ROOT"/}/, installs nothing)")
  fail "$WANTED $reason" "${next[@]}"
}

# Returns if everything missing may be installed; else prints the exact commands and exits 3.
packages_consent() {
  local name answer parts=()
  if ((${#MISSING[@]})); then
    packages_plan
    megabytes "$TOTAL_BYTES"
    ((TOTAL_BYTES)) || REPLY="size known after apt-get update"
    if ((NO_ROOT)); then
      parts+=("${#MISSING[@]} missing; a bundle for them, about 40 MB, into ${SHARED_DIR#"$ROOT"/}/bundle")
    else
      parts+=("${#MISSING[@]} missing, $REPLY")
    fi
  fi
  torch_is_missing && parts+=("torch $TORCH_VERSION $TORCH_SIZE")
  WANTED=${parts[0]}${parts[1]:+; ${parts[1]}}
  for name in ${MISSING[@]+"${MISSING[@]}"}; do
    REPLY=""
    [[ -n ${SIZE[$name]:-} ]] && megabytes "${SIZE[$name]}"
    detail "$(printf '%-20s %6s  %s' "$name" "$REPLY" "${PURPOSE[$name]}")"
  done
  if ((!ASSUME_YES)); then
    if [[ -t 0 && -t 2 ]]; then
      printf '\r\033[K%s %s. Install? [Y/n] ' "$PHASE_LABEL" "$WANTED" >&2
      read -r answer || answer=n
      case $answer in
        "" | [yY] | [yY][eE][sS]) ;;
        *) may_not "not installed: you said no" ;;
      esac
    elif ((EUID != 0)); then
      may_not "may not be installed: no terminal to ask at, and no --yes"
    fi
  fi
  if ((${#MISSING[@]} && EUID != 0 && !NO_ROOT)) && ! command -v sudo >/dev/null; then
    may_not "may not be installed: not root, and there is no sudo"
  fi
  phase_done "$WANTED: installing"
}

# apt_run ARGUMENTS...: apt-get as root, its own progress shown, everything in the log.
apt_run() {
  local line kind item percent rest command=(env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get
    -o APT::Status-Fd=1 -o DPkg::Lock::Timeout=300 "$@")
  if ((EUID != 0)); then
    if [[ -t 0 ]]; then command=(sudo "${command[@]}"); else command=(sudo -n "${command[@]}"); fi
  fi
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$LOG"
    IFS=: read -r kind item percent rest <<<"$line"
    case $kind in
      dlstatus) progress "downloading ${percent%%.*} %" ;;
      pmstatus) progress "installing ${percent%%.*} %  $item" ;;
    esac
  done < <(exec "${command[@]}" 2>&1 </dev/null)
  wait $!
}

packages_install() {
  ((${#MISSING[@]})) || return 0
  if ((NO_ROOT)); then
    packages_bundle
    return
  fi
  local update=0
  ((TOTAL_BYTES)) || update=1
  while true; do
    if ((update)); then
      progress "fetching the lists of packages"
      apt_run update || packages_failed "apt-get update"
    fi
    apt_run install -y --no-install-recommends "${MISSING[@]}" && break
    ((update)) && packages_failed "apt-get install"
    update=1  # the lists may be older than the archive: once more with fresh ones
  done
  packages_find_missing
  ((${#MISSING[@]})) && packages_failed "apt-get install left out ${MISSING[*]}"
  found "${#PACKAGES[@]} packages"
  return 0
}

# --no-root: a bundle of this machine's own packages in their place.
packages_bundle() {
  source "$ROOT/launch/bootstrap/bundle_make.sh"
  bundle_require_tools
  bundle_make "$SHARED_DIR/bundle"
  bundle_find
  packages_find_missing
}

packages_failed() {
  packages_commands
  fail "$1: $(grep -aE '^(E|W):|sudo:' "$LOG" | tail -1)" "${COMMANDS[@]}" "$COMMAND_LINE"
}
