#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "common/base/check.h"

namespace thresher {

// The closed set of everyday failures. What is a bug uses THRESHER_CHECK; what is wrong in a
// configuration uses ConfigError (common/config).
enum class StatusCode {
  kOk = 0,
  kInvalidArgument,     // the caller's data is wrong, whatever the state
  kNotFound,            // the thing named does not exist
  kAlreadyExists,       // a duplicate of something accepted before
  kFailedPrecondition,  // right request, wrong state
  kOutOfRange,          // a position or size beyond its limit
  kDeadlineExceeded,    // a wait ended; the message names peer and operation
  kUnavailable,         // may heal by itself: retry with back-off
  kResourceExhausted,   // full: credit, disk, memory
  kDataLoss,            // bytes are damaged: checksum, torn record, truncated file
  kPermissionDenied,    // wrong key, token, role or incarnation
  kCancelled,           // asked to stop
  kAborted,             // a collective or transaction was given up
  kInternal,            // a third-party library failed in an unexpected way
};

// "INVALID_ARGUMENT" and so on.
const char* StatusCodeName(StatusCode code);

// The outcome of an operation that returns nothing else. Cheap when ok.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }
  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // "DATA_LOSS: journal/000001.log: record 17: checksum" or "OK".
  std::string ToString() const;
  // The same status with `context` and ": " put before its message.
  Status WithContext(const std::string& context) const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
inline Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status AlreadyExists(std::string m) { return {StatusCode::kAlreadyExists, std::move(m)}; }
inline Status FailedPrecondition(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
inline Status OutOfRange(std::string m) { return {StatusCode::kOutOfRange, std::move(m)}; }
inline Status DeadlineExceeded(std::string m) {
  return {StatusCode::kDeadlineExceeded, std::move(m)};
}
inline Status Unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status ResourceExhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status DataLoss(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
inline Status PermissionDenied(std::string m) {
  return {StatusCode::kPermissionDenied, std::move(m)};
}
inline Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status Aborted(std::string m) { return {StatusCode::kAborted, std::move(m)}; }
inline Status InternalError(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

// A value or the Status that says why there is none. Taking the value of an error is a bug.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {
    THRESHER_CHECK(!status_.ok(), "Result built from an ok Status without a value");
  }

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() & {
    THRESHER_CHECK(ok(), status_.ToString());
    return *value_;
  }
  const T& value() const& {
    THRESHER_CHECK(ok(), status_.ToString());
    return *value_;
  }
  T&& value() && {
    THRESHER_CHECK(ok(), status_.ToString());
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

#define THRESHER_CONCAT_INNER(a, b) a##b
#define THRESHER_CONCAT(a, b) THRESHER_CONCAT_INNER(a, b)

#define THRESHER_RETURN_IF_ERROR(expr)                   \
  do {                                                   \
    ::thresher::Status thresher_status_ = (expr);        \
    if (!thresher_status_.ok()) return thresher_status_; \
  } while (false)

// THRESHER_ASSIGN_OR_RETURN(auto x, Compute());
#define THRESHER_ASSIGN_OR_RETURN(decl, expr) \
  THRESHER_ASSIGN_OR_RETURN_IMPL(THRESHER_CONCAT(thresher_result_, __LINE__), decl, expr)
#define THRESHER_ASSIGN_OR_RETURN_IMPL(tmp, decl, expr) \
  auto tmp = (expr);                                    \
  if (!tmp.ok()) return tmp.status();                   \
  decl = std::move(tmp).value()

}  // namespace thresher
