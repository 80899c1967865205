#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace thresher {

// First in, first out between threads, at most `capacity` items. Every wait has a deadline and ends
// when the queue is closed. Thread-safe. After Close nothing enters; what is inside can still be
// taken.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(std::size_t capacity) : capacity_(capacity) {
    THRESHER_CHECK(capacity > 0, "a queue without room");
  }
  BoundedQueue(const BoundedQueue&) = delete;
  BoundedQueue& operator=(const BoundedQueue&) = delete;

  // Waits for room. `item` is moved from only on success. Errors: kDeadlineExceeded, kCancelled
  // (closed).
  Status Push(T&& item, Duration timeout) {
    std::unique_lock lock(mutex_);
    bool ready =
        room_.wait_for(lock, timeout, [&] { return closed_ || items_.size() < capacity_; });
    if (closed_) return Cancelled("the queue is closed");
    if (!ready) return DeadlineExceeded("the queue stayed full");
    items_.push_back(std::move(item));
    lock.unlock();
    filled_.notify_one();
    return Status::Ok();
  }

  // Without waiting. Errors: kResourceExhausted (full), kCancelled (closed).
  Status TryPush(T&& item) {
    std::unique_lock lock(mutex_);
    if (closed_) return Cancelled("the queue is closed");
    if (items_.size() >= capacity_) return ResourceExhausted("the queue is full");
    items_.push_back(std::move(item));
    lock.unlock();
    filled_.notify_one();
    return Status::Ok();
  }

  // Waits for an item. Errors: kDeadlineExceeded, kCancelled (closed and empty).
  Result<T> Pop(Duration timeout) {
    std::unique_lock lock(mutex_);
    filled_.wait_for(lock, timeout, [&] { return closed_ || !items_.empty(); });
    if (items_.empty()) {
      return closed_ ? Cancelled("the queue is closed")
                     : DeadlineExceeded("the queue stayed empty");
    }
    T item = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    room_.notify_one();
    return item;
  }

  // Without waiting; nothing when it is empty.
  std::optional<T> TryPop() {
    std::unique_lock lock(mutex_);
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    lock.unlock();
    room_.notify_one();
    return item;
  }

  // Ends all waits. Idempotent.
  void Close() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    filled_.notify_all();
    room_.notify_all();
  }

  std::size_t size() const {
    std::lock_guard lock(mutex_);
    return items_.size();
  }
  bool closed() const {
    std::lock_guard lock(mutex_);
    return closed_;
  }
  std::size_t capacity() const { return capacity_; }

 private:
  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable filled_, room_;
  std::deque<T> items_;
  bool closed_ = false;
};

}  // namespace thresher
