#include "common/wire/capnp_adapter.h"

#include <kj/io.h>

#include <cstring>

#include "common/data/byte_order.h"

namespace thresher::wire {

namespace {

constexpr std::size_t kFirstWords = 1024;

struct ThreadsSegment {
  capnp::word words[kFirstWords] = {};
  bool taken = false;
};
thread_local ThreadsSegment threads_segment;

}  // namespace

FirstSegment::FirstSegment() {
  if (threads_segment.taken) {
    words_ = own_ = kj::heapArray<capnp::word>(kFirstWords);
    std::memset(words_.begin(), 0, words_.asBytes().size());
    return;
  }
  threads_segment.taken = true;
  words_ = kj::arrayPtr(threads_segment.words, kFirstWords);
}

FirstSegment::~FirstSegment() {
  if (own_ == nullptr) threads_segment.taken = false;
}

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
  const auto segments = message.getSegmentsForOutput();
  if (segments.size() == 1) {  // nearly always: without a stream
    const kj::ArrayPtr<const char> bytes = segments[0].asChars();
    AppendLittle<std::uint32_t>(out, 0);  // segments but for the first
    AppendLittle(out, static_cast<std::uint32_t>(segments[0].size()));
    out.append(bytes.begin(), bytes.size());
    return;
  }
  std::size_t begin = out.size();
  out.resize(begin + CapnpBytes(message));
  kj::ArrayOutputStream stream(
      kj::arrayPtr(reinterpret_cast<kj::byte*>(out.data()) + begin, out.size() - begin));
  capnp::writeMessage(stream, message);
}

}  // namespace thresher::wire
