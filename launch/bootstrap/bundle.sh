# Bundles: a folder with the third-party headers and libraries of a build, made by launch/bundle, for
# machines where no package can be installed. Finding one, and checking it before it is used.
BUNDLE=""
BUNDLE_FORMAT=1

# bundle_find: BUNDLE becomes the folder to build with, or empty: the one that THRESHER_BUNDLE names,
# one unpacked beside the sources, one made by --no-root.
bundle_find() {
  BUNDLE=""
  if [[ -n ${THRESHER_BUNDLE:-} ]]; then
    [[ -d $THRESHER_BUNDLE ]] || fail "THRESHER_BUNDLE=$THRESHER_BUNDLE is no folder" \
      "launch/bundle --use ARCHIVE   (unpacks one into bundle/), then unset THRESHER_BUNDLE"
    BUNDLE=$(cd "$THRESHER_BUNDLE" && pwd)
  elif [[ -d $ROOT/bundle ]]; then
    BUNDLE=$ROOT/bundle
  elif [[ -d $SHARED_DIR/bundle ]]; then
    BUNDLE=$SHARED_DIR/bundle
  fi
}

# The identity of BUNDLE: another one is configured anew. Empty without one.
bundle_key() {
  REPLY=""
  [[ -n $BUNDLE ]] || return 0
  REPLY="$BUNDLE $(sha256sum 2>/dev/null <"$BUNDLE/SHA256SUMS")"
}

# bundle_manifest FOLDER KEY -> REPLY, the value; false if there is none.
bundle_manifest() {
  local key value
  while read -r key value; do
    [[ $key == "$2" ]] && REPLY=$value && return 0
  done 2>/dev/null <"$1/MANIFEST"
  REPLY=""
  return 1
}

# at_least VERSION LEAST
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1) == "$2" ]]; }

# bundle_verify FOLDER: true if the folder is a whole bundle that this machine can use. Otherwise false
# with BUNDLE_ERROR, one line, and BUNDLE_REMEDY, what to do about it.
bundle_verify() {
  BUNDLE_ERROR="" BUNDLE_REMEDY="launch/bundle --use ARCHIVE   (unpacks it again)"
  [[ $1 == "$SHARED_DIR/bundle" ]] && BUNDLE_REMEDY="rm -r $1; launch/thresher --no-root   (makes it again)"
  bundle_suits "$1" && bundle_is_whole "$1"
}

# The machine: format, architecture, versions of the C and C++ libraries.
bundle_suits() {
  local value node
  bundle_manifest "$1" format || { BUNDLE_ERROR="it has no MANIFEST, so it is no bundle" && return 1; }
  if [[ $REPLY != "$BUNDLE_FORMAT" ]]; then
    BUNDLE_ERROR="its format is $REPLY; these sources read $BUNDLE_FORMAT"
    BUNDLE_REMEDY="launch/bundle OUT   (on a connected machine, with these sources)" && return 1
  fi
  bundle_manifest "$1" architecture
  if [[ $REPLY != "$(uname -m)" ]]; then
    BUNDLE_ERROR="it is for ${REPLY:-an unknown architecture}, this machine is $(uname -m)"
    BUNDLE_REMEDY="launch/bundle OUT   (on a connected machine of this architecture)" && return 1
  fi
  BUNDLE_REMEDY_OLDER="launch/bundle OUT   (on a connected machine with a system as old as this one)"
  bundle_manifest "$1" glibc
  value=$REPLY node=$(getconf GNU_LIBC_VERSION 2>/dev/null)
  if ! at_least "${node#glibc }" "$value"; then
    BUNDLE_ERROR="it needs glibc $value or newer, this machine has ${node#glibc }"
    BUNDLE_REMEDY=$BUNDLE_REMEDY_OLDER && return 1
  fi
  bundle_manifest "$1" libstdc++ || return 0
  value=$REPLY node=$(g++ -print-file-name=libstdc++.so.6 2>/dev/null)
  if [[ -f $node ]] && ! grep -qaF "$value" "$node"; then
    BUNDLE_ERROR="it needs a libstdc++ with $value, $node is older"
    BUNDLE_REMEDY=$BUNDLE_REMEDY_OLDER && return 1
  fi
}

# The files: each as it was when the bundle was made, and no other.
bundle_is_whole() {
  local name rest wrong=() extra
  [[ -s $1/SHA256SUMS ]] || { BUNDLE_ERROR="SHA256SUMS is missing" && return 1; }
  while IFS=: read -r name rest; do
    [[ -n $rest ]] && wrong+=("$name")
  done < <(cd "$1" && LC_ALL=C sha256sum --check --quiet --strict SHA256SUMS 2>/dev/null || echo "SHA256SUMS: unreadable")
  if ((${#wrong[@]} > 1)); then unset 'wrong[-1]'; fi # the verdict on the whole; the files say which
  if ((${#wrong[@]})); then
    BUNDLE_ERROR="${wrong[0]} is not as it was made"
    [[ -e $1/${wrong[0]} ]] || BUNDLE_ERROR="${wrong[0]} is missing"
    ((${#wrong[@]} > 1)) && BUNDLE_ERROR+=" (and $((${#wrong[@]} - 1)) more)"
    return 1
  fi
  extra=$(cd "$1" && LC_ALL=C comm -23 <(find . ! -type d ! -path ./SHA256SUMS | sed 's,^\./,,' | LC_ALL=C sort) \
    <(sed 's/^[0-9a-f]* [ *]//' SHA256SUMS | LC_ALL=C sort) | head -1)
  [[ -z $extra ]] || { BUNDLE_ERROR="$extra does not belong to it" && return 1; }
}

# bundle_needs FILE... -> the shared libraries that the files name, one a line.
bundle_needs() { LC_ALL=C readelf -dW "$@" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u; }

# bundle_from_node LIBRARY: true if it is one that every machine with a C++ compiler has.
bundle_from_node() {
  case $1 in
    libc.so.6 | libm.so.6 | libdl.so.2 | librt.so.1 | libpthread.so.0 | libresolv.so.2) return 0 ;;
    libstdc++.so.6 | libgcc_s.so.1 | ld-linux*.so.*) return 0 ;;
  esac
  return 1
}

# bundle_is_closed FOLDER: true if its libraries and programs need nothing but each other, the C and
# the C++ library. Otherwise false with BUNDLE_ERROR.
bundle_is_closed() {
  local file library files=()
  for file in "$1"/lib/*.so* "$1"/libexec/*; do [[ -f $file ]] && files+=("$file"); done
  for file in ${files[@]+"${files[@]}"}; do
    while read -r library; do
      bundle_from_node "$library" || [[ -f $1/lib/$library ]] && continue
      BUNDLE_ERROR="$library, needed by ${file##*/}, is not in it"
      return 1
    done < <(bundle_needs "$file")
  done
}

# What a bundle does not hold must be on the machine.
bundle_require_tools() {
  local tool
  for tool in g++ cmake ninja python3; do
    [[ $tool == g++ ]] && kept CXX && continue
    "${CLEAN[@]}" sh -c "command -v $tool" >/dev/null 2>&1 ||
      fail "no $tool in $SYSTEM_PATH, and a bundle does not bring it" \
        "THRESHER_KEEP_ENV=PATH $COMMAND_LINE   (if $tool is elsewhere on your PATH)"
  done
}

# Phase 2 with a bundle: nothing is installed.
bundle_use() {
  bundle_require_tools
  bundle_verify "$BUNDLE" || fail "the bundle $BUNDLE cannot be used: $BUNDLE_ERROR" "$BUNDLE_REMEDY"
  bundle_manifest "$BUNDLE" system
  BUNDLE_WHAT="bundle ${BUNDLE#"$ROOT"/} of $REPLY"
  found "$BUNDLE_WHAT"
}
