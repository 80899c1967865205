# What machine this is and whether it is a supported one.

# system_supported ARCHITECTURE ID VERSION: Debian 12, Ubuntu 22.04 and 24.04 on x86-64.
system_supported() {
  [[ $1 == x86_64 ]] || return 1
  case "$2 $3" in
    "debian 12" | "ubuntu 22.04" | "ubuntu 24.04") return 0 ;;
  esac
  return 1
}

# compiler_supported VERSION: GCC 11 to 14.
compiler_supported() {
  local major=${1%%.*}
  [[ $major =~ ^[0-9]+$ ]] && ((major >= 11 && major <= 14))
}

# system_vectors FLAGS -> REPLY: the widest vector instructions among the words of /proc/cpuinfo.
system_vectors() {
  case " $1 " in
    *" avx512f "*) REPLY=AVX-512 ;;
    *" avx2 "*) REPLY=AVX2 ;;
    *) REPLY="no AVX2 (slow)" ;;
  esac
}

system_check() {
  local name="unknown system" id="" version="" arch key value flags="" gpus=0 text
  while IFS='=' read -r key value; do
    value=${value%\"} value=${value#\"}
    case $key in
      NAME) name=${value%% *} ;;
      ID) id=$value ;;
      VERSION_ID) version=$value ;;
    esac
  done < <(cat /etc/os-release 2>/dev/null)
  arch=$(uname -m)
  # With a bundle nothing is asked of the distribution; whether it fits the machine, its check says.
  if ! system_supported "$arch" "$id" "$version" && [[ -z $BUNDLE ]]; then
    phase_done "$name $version on $arch is not supported; supported: Debian 12, Ubuntu 22.04 and 24.04 on x86-64"
    exit 3
  fi
  while IFS=: read -r key value; do
    [[ $key == flags* ]] && flags=$value && break
  done < <(cat /proc/cpuinfo 2>/dev/null)
  system_vectors "$flags"
  [[ -d /proc/driver/nvidia/gpus ]] && gpus=$(ls /proc/driver/nvidia/gpus | wc -l)
  text="$name $version, $(nproc) cores, $REPLY"
  if ((gpus)); then text+="; $gpus GPU"; else text+="; no GPU (not needed)"; fi
  found "$text"
  phase_done "$text"
}
