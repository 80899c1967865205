#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "common/wire/frame.h"
#include "common/wire/messages.h"

namespace thresher::sim {

// Whether the frame carries a message of this kind (common/wire/frame.h).
template <typename Kind>
bool Carries(const std::string& bytes) {
  constexpr std::size_t kKindAt = 6;
  static const std::size_t kind = wire::Message(Kind{}).index();
  return bytes.size() > kKindAt && static_cast<unsigned char>(bytes[kKindAt]) == kind;
}

// The message of a frame, if it is of this kind and not damaged.
template <typename Kind>
std::optional<Kind> Read(const std::string& bytes) {
  if (!Carries<Kind>(bytes)) return std::nullopt;
  auto frame = wire::DecodeFrame(std::as_bytes(std::span(bytes)));
  if (!frame.ok()) return std::nullopt;
  return std::get<Kind>(std::move(frame->message));
}

// Who sent a frame that is not damaged.
inline std::optional<Incarnation> SenderOf(const std::string& bytes) {
  auto frame = wire::DecodeFrame(std::as_bytes(std::span(bytes)));
  if (!frame.ok()) return std::nullopt;
  return frame->envelope.incarnation;
}

}  // namespace thresher::sim
