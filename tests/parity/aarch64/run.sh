#!/usr/bin/env bash
# Compares the kernels' bits on this machine with those of the portable variant on aarch64, under
# qemu-user. run.sh SOURCE_ROOT WORK_DIR NATIVE_KERNEL_HASHES; exit 77: a tool is missing.
set -eu
root=$1 work=$2 native=$3
compiler=aarch64-linux-gnu-g++
for tool in "$compiler" qemu-aarch64; do
  command -v "$tool" >/dev/null || { echo "SKIPPED: no $tool (Debian: g++-aarch64-linux-gnu, qemu-user)"; exit 77; }
done
mkdir -p "$work"
sources=("$root/tests/parity/aarch64/kernel_hashes.cc")
for file in "$root"/kernels/cpu/*.cc; do
  case ${file##*/} in
    variant_avx*.cc | variant_amx.cc | cpu_features.cc) ;;
    *) sources+=("$file") ;;
  esac
done
objects=()
for file in "${sources[@]}"; do
  object=$work/$(basename "$file" .cc).o
  objects+=("$object")
  "$compiler" -std=c++20 -O2 -ffp-contract=off -fno-fast-math -fno-math-errno -I"$root" -c "$file" -o "$object"
done
"$compiler" -static "${objects[@]}" -o "$work/kernel_hashes"
"$native" >"$work/native.txt"
qemu-aarch64 "$work/kernel_hashes" >"$work/aarch64.txt"
(($(wc -l <"$work/native.txt") >= 20)) || { echo "too few hashes"; exit 1; }
diff "$work/native.txt" "$work/aarch64.txt"
