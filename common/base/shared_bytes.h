#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace thresher {

// Immutable bytes that several holders share: a view and the owner that keeps what it shows. Cheap
// to copy; a slice keeps the whole of its owner alive, which owner_bytes() counts. Thread-safe as a
// shared_ptr<const T> is.
class SharedBytes {
 public:
  SharedBytes() = default;
  SharedBytes(std::string bytes) {
    auto owner = std::make_shared<const std::string>(std::move(bytes));
    view_ = *owner;
    owner_bytes_ = view_.size();
    owner_ = std::move(owner);
  }
  SharedBytes(const char* text) : SharedBytes(std::string(text)) {}
  explicit SharedBytes(std::string_view copied) : SharedBytes(std::string(copied)) {}
  // `view` lies in memory that `owner` keeps; it has `owner_bytes` in all.
  SharedBytes(std::shared_ptr<const void> owner, std::string_view view, std::size_t owner_bytes)
      : owner_(std::move(owner)), view_(view), owner_bytes_(owner_bytes) {}

  operator std::string_view() const { return view_; }
  std::string_view view() const { return view_; }
  const char* data() const { return view_.data(); }
  std::size_t size() const { return view_.size(); }
  bool empty() const { return view_.empty(); }
  const char* begin() const { return view_.data(); }
  const char* end() const { return view_.data() + view_.size(); }
  std::string ToString() const { return std::string(view_); }

  // [offset, offset + size) of these bytes, of the same owner; both in range.
  SharedBytes Slice(std::size_t offset, std::size_t size) const {
    return {owner_, view_.substr(offset, size), owner_bytes_};
  }
  // The same bytes with an owner of their own.
  SharedBytes Copy() const { return SharedBytes(view_); }
  // Names the owner, and what it holds.
  const void* owner() const { return owner_.get(); }
  std::size_t owner_bytes() const { return owner_bytes_; }

  friend bool operator==(const SharedBytes& a, const SharedBytes& b) { return a.view_ == b.view_; }
  template <typename T>
  requires(!std::same_as<T, SharedBytes> &&
           std::convertible_to<const T&, std::string_view>) friend bool
  operator==(const SharedBytes& a, const T& b) {
    return a.view_ == std::string_view(b);
  }

 private:
  std::shared_ptr<const void> owner_;
  std::string_view view_;
  std::size_t owner_bytes_ = 0;
};

}  // namespace thresher
