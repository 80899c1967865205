# What the caller's environment may not decide: the build sees the system's own tools and libraries,
# so that a conda, virtualenv or module prefix cannot shadow them. A variable named in
# THRESHER_KEEP_ENV is kept.
SCRUBBED=(CONDA_PREFIX VIRTUAL_ENV CMAKE_PREFIX_PATH CMAKE_TOOLCHAIN_FILE CMAKE_GENERATOR
  CMAKE_BUILD_TYPE Torch_DIR TORCH_INSTALL_PREFIX PYTHONPATH PYTHONHOME LD_LIBRARY_PATH LIBRARY_PATH
  CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH PKG_CONFIG_PATH PKG_CONFIG_LIBDIR CC CXX CFLAGS CXXFLAGS
  CPPFLAGS LDFLAGS NINJA_STATUS MAKEFLAGS PIP_TARGET PIP_PREFIX PIP_USER)
SYSTEM_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/cuda/bin

kept() { [[ " ${THRESHER_KEEP_ENV:-} " == *" $1 "* ]]; }

# Prepares CLEAN, the command prefix that runs a program in the scrubbed environment, and says what
# was ignored.
scrub_report() {
  local name ignored=()
  CLEAN=(env)
  for name in "${SCRUBBED[@]}"; do
    kept "$name" && continue
    CLEAN+=(-u "$name")
    [[ -n ${!name:-} ]] && ignored+=("$name")
  done
  kept PATH || CLEAN+=("PATH=$SYSTEM_PATH")
  CLEAN+=("CCACHE_DIR=${CCACHE_DIR:-$SHARED_DIR/ccache}")
  # What was compiled in one checkout serves the next, where they share a cache.
  CLEAN+=("CCACHE_BASEDIR=${CCACHE_BASEDIR:-$ROOT}")
  if ((${#ignored[@]})); then
    found "ignored ${ignored[*]}"
    detail "ignored for the build: ${ignored[*]} (THRESHER_KEEP_ENV=\"NAME...\" keeps them)"
  fi
}

# The built program loads the system's libraries: entries of LD_LIBRARY_PATH that hold another copy
# of one of them are taken out for it.
drop_shadowing_library_paths() {
  [[ -z ${LD_LIBRARY_PATH:-} ]] && return
  kept LD_LIBRARY_PATH && return
  local entry library rest=$LD_LIBRARY_PATH: keep="" dropped=""
  while [[ -n $rest ]]; do
    entry=${rest%%:*} rest=${rest#*:}
    [[ -z $entry ]] && continue
    for library in libstdc++.so.6 libzmq.so.5 libmpi.so.40 libzstd.so.1 libgomp.so.1; do
      [[ -e $entry/$library ]] && dropped+=" $entry" && continue 2
    done
    keep+=${keep:+:}$entry
  done
  [[ -z $dropped ]] && return
  export LD_LIBRARY_PATH=$keep
  printf 'thresher: ignored in LD_LIBRARY_PATH, other copies of its libraries:%s\n' "$dropped" >&2
}

# Inside an MPI or Slurm job nothing is installed or built: a thousand ranks would all try.
refuse_inside_a_job() {
  local name
  for name in OMPI_COMM_WORLD_RANK PMIX_RANK PMI_RANK SLURM_STEP_ID SLURM_JOB_ID; do
    if [[ -n ${!name:-} ]]; then
      phase 1 system
      fail "inside a job ($name is set) nothing is built, and ${BUILD_DIR#"$ROOT"/} is missing or older than its sources" \
        "launch/thresher --version   on a login node or this machine, outside the job; then start the job again"
    fi
  done
}
