#pragma once

// Internal to common/wire: the Cap'n Proto machinery under the codecs. Only the .cc files of this
// folder and the internal headers (*_codec.h) include it.

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <concepts>
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

inline void Require(bool holds, const char* problem) {
  if (!holds) throw Malformed(problem);
}
// `problem()` gives the text, which costs more than what is read.
template <std::invocable Problem>
void Require(bool holds, Problem&& problem) {
  if (!holds) throw Malformed(problem());
}

inline constexpr int kNestingLimit = 16;
// Reading a well-formed message touches every word once; the slack covers the root pointers.
inline constexpr std::uint64_t kTraversalSlackWords = 64;

// A builder's first segment (8 KiB), for most envelopes and journal records fit: the thread's,
// which is zero before and after use, or one of its own while another builder has that. Outlives
// the builder.
class FirstSegment {
 public:
  FirstSegment();
  ~FirstSegment();
  FirstSegment(const FirstSegment&) = delete;
  FirstSegment& operator=(const FirstSegment&) = delete;
  kj::ArrayPtr<capnp::word> words() { return words_; }

 private:
  kj::Array<capnp::word> own_;
  kj::ArrayPtr<capnp::word> words_;
};

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
