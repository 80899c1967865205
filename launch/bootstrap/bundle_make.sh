# Making a bundle from packages that apt fetches: no root, nothing installed. Sourced by launch/bundle
# and, for --no-root, by the bootstrap. Works in SHARED_DIR/bundle.work, which every making begins anew.
BUNDLE_LIMIT_MIB=60

# Fills ROLES, PATTERNS, LICENCES (one entry a line of launch/bundle.txt) and LINKS ("name how").
bundle_read_table() {
  local role pattern rest
  ROLES=() PATTERNS=() LICENCES=() LINKS=()
  while read -r role pattern rest; do
    case $role in
      "" | \#*) ;;
      link) LINKS+=("$pattern $rest") ;;
      *) ROLES+=("$role") PATTERNS+=("$pattern") LICENCES+=("$rest") ;;
    esac
  done <"$ROOT/launch/bundle.txt"
}

# bundle_role PACKAGE: sets ROLE and LICENCE; false if the table does not name it.
bundle_role() {
  local i
  for i in "${!PATTERNS[@]}"; do
    [[ $1 =~ ^(${PATTERNS[i]})$ ]] || continue
    ROLE=${ROLES[i]} LICENCE=${LICENCES[i]}
    [[ $LICENCE == GPL* || $LICENCE == AGPL* ]] &&
      fail "$1 has the licence $LICENCE; nothing under the GPL is linked" "take it out of launch/bundle.txt"
    return 0
  done
  ROLE="" LICENCE=""
  return 1
}

# Fills SEEDS: the packages of packages.txt that a bundle holds.
bundle_seeds() {
  local name rest
  SEEDS=()
  while read -r name rest; do
    [[ -z $name || $name == \#* ]] && continue
    bundle_role "$name" || fail "launch/packages.txt names $name, launch/bundle.txt does not" "give it a role there"
    [[ $ROLE == dev || $ROLE == tool ]] && SEEDS+=("$name")
  done <"$ROOT/launch/packages.txt"
  ((${#SEEDS[@]})) || fail "launch/packages.txt names nothing that a bundle holds" "git checkout launch/packages.txt"
}

# bundle_apt ARGUMENTS...: apt-get as if nothing were installed, with state of our own.
bundle_apt() {
  local options=(-o "Dir::State::status=$WORK/apt/status" -o "Dir::Cache=$WORK/apt/cache"
    -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Retries=3)
  ((OWN_LISTS)) && options+=(-o "Dir::State::lists=$WORK/apt/lists")
  env LC_ALL=C apt-get "${options[@]}" "$@" 2>>"$LOG" </dev/null
}

bundle_open_work() {
  WORK=$SHARED_DIR/bundle.work OWN_LISTS=0
  { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
    fail "a bundle is made on Debian or Ubuntu; there is no apt-get or dpkg-deb" "launch/bundle OUT   (there)" \
      "launch/bundle --use ARCHIVE   (here)"
  command -v readelf >/dev/null || fail "there is no readelf (package binutils)" "apt-get install binutils"
  [[ $(uname -m) == x86_64 ]] || fail "bundles are made for x86_64, this machine is $(uname -m)" \
    "launch/bundle OUT   (on such a machine)"
  { rm -rf "$WORK" && mkdir -p "$WORK"/apt/{lists,cache/archives}/partial "$WORK/debs"; } ||
    fail "cannot write $WORK" "df $SHARED_DIR"
  : >"$WORK/apt/status"
}

# bundle_resolve: what apt would fetch for the seeds on a bare system. Fills PLAN ("name=version" of
# those that the table takes), PLAN_FILES, PLAN_BYTES, UNLISTED (those it does not name), GLIBC.
bundle_resolve() {
  local uri file bytes rest name version
  PLAN=() PLAN_FILES=() UNLISTED=() PLAN_BYTES=0 GLIBC=""
  while read -r uri file bytes rest; do
    [[ $uri == \'*\' && $bytes =~ ^[0-9]+$ ]] || continue
    name=${file%%_*} version=${file#*_} version=${version%_*} version=${version//%3a/:}
    [[ $name == libc6 ]] && GLIBC=${version%%-*}
    if ! bundle_role "$name"; then
      UNLISTED+=("$name")
    elif [[ $ROLE != node && $ROLE != left ]]; then
      PLAN+=("$name=$version") PLAN_FILES+=("$file")
      ((PLAN_BYTES += bytes))
    fi
  done < <(bundle_apt install --print-uris -qq -y --no-install-recommends "${SEEDS[@]}")
  [[ -n $GLIBC ]] && ((${#PLAN[@]} >= ${#SEEDS[@]}))
}

# The plan from the system's lists of packages, else from lists of our own.
bundle_plan() {
  bundle_read_table
  bundle_seeds
  bundle_open_work
  progress "asking apt"
  bundle_resolve || bundle_plan_afresh
}

bundle_plan_afresh() {
  OWN_LISTS=1
  progress "fetching the lists of packages"
  bundle_apt update -qq >>"$LOG" && bundle_resolve && return
  fail "apt cannot find ${SEEDS[0]} and the others: $(grep -aE '^(E|W):' "$LOG" | tail -1)" \
    "$COMMAND_LINE   (with a network and the distribution's own package sources)"
}

# Fetches the packages; apt checks them against the signed lists.
bundle_fetch() {
  megabytes "$PLAN_BYTES"
  progress "fetching ${#PLAN[@]} packages, $REPLY"
  (cd "$WORK/debs" && bundle_apt download -qq "${PLAN[@]}" >>"$LOG") && return
  ((OWN_LISTS)) && fail "apt-get download: $(grep -aE '^(E|W):' "$LOG" | tail -1)" "$COMMAND_LINE"
  bundle_plan_afresh # the lists may be older than the archive: once more with fresh ones
  bundle_fetch
}

# Each package into a folder of its own, so that a file tells where it is from.
bundle_unpack() {
  local i
  rm -rf "$WORK/unpacked" && mkdir -p "$WORK/unpacked"
  for i in "${!PLAN[@]}"; do
    dpkg-deb -x "$WORK/debs/${PLAN_FILES[i]}" "$WORK/unpacked/${PLAN[i]%%=*}" 2>>"$LOG" ||
      fail "dpkg-deb cannot unpack ${PLAN_FILES[i]}" "rm -r $WORK; $COMMAND_LINE"
  done
}

# bundle_locate NAME -> REPLY, the file of that name in the library folders of any package; LIB_OF,
# the package. A link is followed by name: what it points to may lie in another package.
bundle_locate() {
  local file
  for file in "$WORK"/unpacked/*/{usr/,}lib/{x86_64-linux-gnu/,}"$1"; do
    [[ -L $file ]] && bundle_locate "$(basename "$(readlink "$file")")" && return
    [[ -f $file ]] || continue
    REPLY=$file LIB_OF=${file#"$WORK"/unpacked/} LIB_OF=${LIB_OF%%/*}
    return 0
  done
  return 1
}

# bundle_keep PACKAGE WHAT FILE TARGET: copies the file (a link's target in its place) into the bundle.
bundle_keep() {
  KEPT[$1]+="${KEPT[$1]:+, }$2"
  { mkdir -p "$(dirname "$STAGE/$4")" && cp -L --preserve=mode "$3" "$STAGE/$4"; } ||
    fail "cannot write $STAGE/$4" "df $SHARED_DIR"
}

# bundle_keep_shared LIBRARY NEEDED-BY: the shared library of that name, with all it needs.
bundle_keep_shared() {
  local name=$1 library
  [[ -e $STAGE/lib/$name ]] && return
  bundle_locate "$name" ||
    fail "$name, needed by $2, is in no package of launch/bundle.txt" \
      "name its package there, with its licence; apt's plan has, unnamed: ${UNLISTED[*]:-none}"
  bundle_keep "$LIB_OF" "$name" "$REPLY" "lib/$name"
  while read -r library; do
    bundle_from_node "$library" || bundle_keep_shared "$library" "$name"
  done < <(bundle_needs "$STAGE/lib/$name")
}

# An archive whose code has absolute addresses of 32 bits cannot go into a program that may lie anywhere.
archive_is_position_independent() { ! LC_ALL=C readelf -rW "$1" 2>/dev/null | grep -qE 'R_X86_64_32S? '; }

# bundle_keep_library NAME HOW: lib<NAME> as a line "link" asks for it.
bundle_keep_library() {
  if [[ $2 == archive ]] && bundle_locate "lib$1.a" && archive_is_position_independent "$REPLY"; then
    bundle_keep "$LIB_OF" "lib$1.a (linked in)" "$REPLY" "lib/lib$1.a"
    return
  fi
  bundle_locate "lib$1.so" || fail "no package holds lib$1.so" "launch/bundle --plan   (shows the packages)"
  bundle_keep_shared "$(LC_ALL=C readelf -dW "$REPLY" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')" "the build"
}

bundle_keep_headers() {
  local package=$1 folder=$WORK/unpacked/$1/usr/include
  [[ -d $folder ]] || return 0
  KEPT[$package]+="${KEPT[$package]:+, }headers"
  cp -RL "$folder/." "$STAGE/include/" 2>>"$LOG" || fail "cannot copy the headers of $package" "df $SHARED_DIR"
  # Some headers of a package depend on the architecture and lie a folder deeper.
  if [[ -d $STAGE/include/x86_64-linux-gnu ]]; then
    cp -R "$STAGE/include/x86_64-linux-gnu/." "$STAGE/include/" && rm -r "$STAGE/include/x86_64-linux-gnu"
  fi
}

# bundle_keep_program PACKAGE NAME: it finds its libraries beside itself.
bundle_keep_program() {
  local library
  bundle_keep "$1" "$2" "$WORK/unpacked/$1/usr/bin/$2" "libexec/$2"
  while read -r library; do
    bundle_from_node "$library" || bundle_keep_shared "$library" "$2"
  done < <(bundle_needs "$STAGE/libexec/$2")
  mkdir -p "$STAGE/bin"
  cat >"$STAGE/bin/$2" <<'PROGRAM'
#!/bin/sh
bundle=$(cd "${0%/*}/.." && pwd)
LD_LIBRARY_PATH=$bundle/lib exec "$bundle/libexec/${0##*/}" "$@"
PROGRAM
  chmod 755 "$STAGE/bin/$2"
}

# The definitions that a package's own description asks of its users, by name of the description.
bundle_keep_defines() {
  local name words word line
  for name in cpp-httplib spdlog; do
    bundle_locate "pkgconfig/$name.pc" || fail "no package holds $name.pc" "launch/bundle --plan"
    line="$name"
    read -ra words <<<"$(sed -n 's/^[Cc][Ff]lags: *//p' "$REPLY")"
    for word in ${words[@]+"${words[@]}"}; do [[ $word == -D* ]] && line+=" ${word#-D}"; done
    printf '%s\n' "$line"
  done >"$STAGE/defines"
}

# bundle_assemble FOLDER: the bundle from the unpacked packages, checked. The folder must not exist.
bundle_assemble() {
  local entry name how
  declare -gA KEPT=()
  STAGE=$WORK/stage
  rm -rf "$STAGE" && mkdir -p "$STAGE/include"
  for entry in "${PLAN[@]}"; do
    bundle_role "${entry%%=*}"
    [[ $ROLE == dev ]] && bundle_keep_headers "${entry%%=*}"
  done
  for entry in "${LINKS[@]}"; do
    read -r name how <<<"$entry"
    bundle_keep_library "$name" "$how"
  done
  for name in capnp capnpc-c++; do bundle_keep_program capnproto "$name"; done
  bundle_locate cmake/CapnProto/CapnProtoMacros.cmake || fail "no package holds CapnProtoMacros.cmake" "launch/bundle --plan"
  bundle_keep "$LIB_OF" "CMake function" "$REPLY" cmake/CapnProtoMacros.cmake
  bundle_keep_defines
  bundle_describe
  { bundle_is_closed "$STAGE" && bundle_verify "$STAGE"; } ||
    fail "the bundle is not sound: $BUNDLE_ERROR" "rm -r $WORK; $COMMAND_LINE"
  { mkdir -p "$(dirname "$1")" && mv "$STAGE" "$1"; } || fail "cannot write $1" "df $(dirname "$1")"
}

# MANIFEST, LICENCES.md, copyright/, and last the checksums of it all.
bundle_describe() {
  local system cxx
  system=$(source /etc/os-release && printf '%s %s' "${NAME%% *}" "${VERSION_ID:-}")
  cxx=$(LC_ALL=C readelf -VW "$STAGE"/lib/*.so* "$STAGE"/libexec/* | grep -o 'GLIBCXX_3[0-9.]*' | sort -Vu | tail -1)
  printf '%s\n' "format $BUNDLE_FORMAT" "architecture x86_64" "system $system" "glibc $GLIBC" \
    ${cxx:+"libstdc++ $cxx"} "packages ${#KEPT[@]}" >"$STAGE/MANIFEST"
  bundle_describe_licences "$system"
  (cd "$STAGE" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sed 's, \./, ,') >"$WORK/sums" &&
    mv "$WORK/sums" "$STAGE/SHA256SUMS"
}

bundle_describe_licences() {
  local entry package
  mkdir -p "$STAGE/copyright"
  {
    printf '# What this bundle holds\nUnchanged files of %s packages. Full texts: copyright/; sources: the distribution.\n' "$1"
    printf 'Libraries under the LGPL are shared ones and can be replaced by others of the same name.\n\n'
    printf '| package | version | licence | holds |\n|---|---|---|---|\n'
    for entry in "${PLAN[@]}"; do
      package=${entry%%=*}
      [[ -n ${KEPT[$package]:-} ]] || continue
      bundle_role "$package"
      bundle_keep_copyright "$package"
      printf '| %s | %s | %s | %s |\n' "$package" "${entry#*=}" "$LICENCE" "${KEPT[$package]}"
    done
  } >"$STAGE/LICENCES.md"
}

# Some packages keep their copyright file in another package of the same source (a link to it or to its
# folder), in Ubuntu 24.04 also by its name before the "t64" that it got.
bundle_keep_copyright() {
  local own=$WORK/unpacked/$1/usr/share/doc/$1 name=$1 folder
  [[ -L $own/copyright ]] && name=$(basename "$(dirname "$(readlink "$own/copyright")")")
  [[ -L $own ]] && name=$(basename "$(readlink "$own")")
  for folder in "$WORK"/unpacked/*/usr/share/doc/"$name"{,t64}; do
    [[ -f $folder/copyright ]] && cp -L "$folder/copyright" "$STAGE/copyright/$1" && return
  done
  fail "$1 has no copyright file" "launch/bundle --plan   (shows the packages)"
}

# bundle_make FOLDER: plan, fetch, assemble.
bundle_make() {
  bundle_plan
  bundle_fetch
  progress "unpacking ${#PLAN[@]} packages"
  bundle_unpack
  progress "assembling"
  bundle_assemble "$1"
  rm -rf "$WORK"
}
