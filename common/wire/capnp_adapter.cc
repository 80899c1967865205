#include "common/wire/capnp_adapter.h"

#include <kj/io.h>

#include <cstring>

namespace thresher::wire {

AlignedWords::AlignedWords(std::string_view bytes) {
  std::size_t count = bytes.size() / sizeof(capnp::word);
  if (IsAligned(bytes)) {
    words_ = kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes.data()), count);
    return;
  }
  copy_ = kj::heapArray<capnp::word>(count);
  std::memcpy(copy_.begin(), bytes.data(), count * sizeof(capnp::word));
  words_ = copy_;
}

std::size_t CapnpBytes(capnp::MessageBuilder& message) {
  return capnp::computeSerializedSizeInWords(message) * sizeof(capnp::word);
}

void AppendCapnp(std::string& out, capnp::MessageBuilder& message) {
  std::size_t begin = out.size();
  out.resize(begin + CapnpBytes(message));
  kj::ArrayOutputStream stream(
      kj::arrayPtr(reinterpret_cast<kj::byte*>(out.data()) + begin, out.size() - begin));
  capnp::writeMessage(stream, message);
}

}  // namespace thresher::wire
