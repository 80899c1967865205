#pragma once

// Internal to common/wire: the Cap'n Proto machinery under the codecs. Only the .cc files of this
// folder and the internal headers (*_codec.h) include it.

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/status.h"

namespace thresher::wire {

// Thrown by readers below for values that no writer produces; caught by ReadCapnp.
class Malformed : public std::exception {
 public:
  explicit Malformed(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

inline void Require(bool holds, const std::string& problem) {
  if (!holds) throw Malformed(problem);
}

inline constexpr int kNestingLimit = 16;
// Reading a well-formed message touches every word once; the slack covers the root pointers.
inline constexpr std::uint64_t kTraversalSlackWords = 64;

// Of a builder's first segment, on the stack (8 KiB): most envelopes and journal records fit.
inline constexpr std::size_t kFirstWords = 1024;

inline bool IsAligned(std::string_view bytes) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(std::uint64_t) == 0;
}

// A message read in place when its bytes are aligned to words, else from a copy.
class AlignedWords {
 public:
  explicit AlignedWords(std::string_view bytes);
  kj::ArrayPtr<const capnp::word> words() const { return words_; }

 private:
  kj::Array<capnp::word> copy_;
  kj::ArrayPtr<const capnp::word> words_;
};

// Appends the message in Cap'n Proto's stream framing (segment table, segments).
void AppendCapnp(std::string& out, capnp::MessageBuilder& message);
// The size AppendCapnp would add.
std::size_t CapnpBytes(capnp::MessageBuilder& message);

// Reads `bytes`, which must be exactly one message with root `Root`, through `read(root)`. Nesting
// and traversal are limited by constants and the size of `bytes`, so a hostile message costs no
// more than its length. Error: kDataLoss "`what`: reason".
template <typename Root, typename Fn>
Status ReadCapnp(std::string_view bytes, const char* what, Fn&& read) {
  if (bytes.empty() || bytes.size() % sizeof(capnp::word) != 0) {
    return DataLoss(std::string(what) + ": " + std::to_string(bytes.size()) +
                    " bytes are no whole number of words");
  }
  AlignedWords aligned(bytes);
  capnp::ReaderOptions options;
  options.nestingLimit = kNestingLimit;
  options.traversalLimitInWords = aligned.words().size() + kTraversalSlackWords;
  try {
    capnp::FlatArrayMessageReader reader(aligned.words(), options);
    Require(reader.getEnd() == aligned.words().end(), "bytes behind the message");
    read(reader.getRoot<Root>());
    return Status::Ok();
  } catch (const Malformed& error) {
    return DataLoss(std::string(what) + ": " + error.what());
  } catch (const kj::Exception& error) {
    return DataLoss(std::string(what) + ": " + error.getDescription().cStr());
  }
}

}  // namespace thresher::wire
