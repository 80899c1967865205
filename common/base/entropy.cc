#include "common/base/entropy.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/check.h"

namespace thresher {
namespace {

thread_local EntropySource* substitute = nullptr;

void FillFromSystem(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::getrandom(bytes.data(), bytes.size(), 0);
    THRESHER_CHECK(got > 0 || errno == EINTR, std::string("no entropy: ") + std::strerror(errno));
    if (got > 0) bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace

std::uint64_t Entropy64() {
  if (substitute != nullptr) return substitute->Next();
  std::uint64_t value = 0;
  FillFromSystem(std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

void FillEntropy(std::span<std::byte> bytes) {
  if (substitute == nullptr) return FillFromSystem(bytes);
  while (!bytes.empty()) {
    std::uint64_t value = substitute->Next();
    const std::size_t count = std::min(bytes.size(), sizeof value);
    for (std::size_t i = 0; i < count; ++i, value >>= 8) bytes[i] = static_cast<std::byte>(value);
    bytes = bytes.subspan(count);
  }
}

EntropySource* SubstituteEntropy(EntropySource* source) {
  return std::exchange(substitute, source);
}

}  // namespace thresher
