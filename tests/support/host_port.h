#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "common/comm/device_port.h"
#include "tests/support/fake_nccl.h"

namespace thresher::comm {

// The host in the place of a device: one thread runs the stream's work in order, as late as a
// device would. Streams are those of fake_nccl.h.
class HostPort : public DevicePort {
 public:
  HostPort() {
    stream_.enqueue = [](FakeStream* self, void (*run)(void*), void* argument) {
      (void)reinterpret_cast<Stream*>(self)->owner->Enqueue([=] { run(argument); }).ok();
    };
    stream_.owner = this;
    thread_ = std::jthread([this](std::stop_token stop) { Run(stop); });
  }

  Result<Staging> MakeStaging(std::size_t bytes) override {
    auto& piece = pieces_.emplace_back(std::make_unique<std::byte[]>(bytes),
                                       std::make_unique<std::byte[]>(bytes));
    std::memset(piece.first.get(), 0xa5, bytes);
    std::memset(piece.second.get(), 0xa5, bytes);
    return Staging{piece.first.get(), piece.second.get(), bytes};
  }
  void Return(const Staging& staging) override {
    std::erase_if(pieces_, [&](const auto& piece) { return piece.first.get() == staging.host; });
  }

  CUstream_st* stream() override { return reinterpret_cast<CUstream_st*>(&stream_); }
  Status ToDevice(std::byte* device, const std::byte* pinned, std::size_t bytes) override {
    return Enqueue([=] { std::memcpy(device, pinned, bytes); });
  }
  Status ToHost(std::byte* pinned, const std::byte* device, std::size_t bytes) override {
    return Enqueue([=] { std::memcpy(pinned, device, bytes); });
  }
  Status Add(float* sum, const float* other, std::size_t count, bool other_first) override {
    return Enqueue([=] {
      for (std::size_t i = 0; i < count; ++i) {
        sum[i] = other_first ? other[i] + sum[i] : sum[i] + other[i];
      }
    });
  }
  // Tests hand in no other stream: the host's work is done when it returns.
  Status WaitFor(CUstream_st*) override { return Status::Ok(); }

  Status Mark() override {
    const std::lock_guard lock(mutex_);
    mark_ = enqueued_;
    return Status::Ok();
  }
  Result<bool> Reached() override {
    const std::lock_guard lock(mutex_);
    if (!lost_.ok()) return lost_;
    return done_ >= mark_;
  }
  Status Peek(std::byte* pinned, const std::byte* device, std::size_t bytes,
              std::chrono::milliseconds) override {
    std::memcpy(pinned, device, bytes);
    return Status::Ok();
  }

  // The next question after progress is answered with this.
  void Lose(Status status) {
    const std::lock_guard lock(mutex_);
    lost_ = std::move(status);
  }

 protected:
  Status Enqueue(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    ++enqueued_;
    changed_.notify_all();
    return Status::Ok();
  }

 private:
  struct Stream : FakeStream {
    HostPort* owner = nullptr;
  };

  void Run(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !queue_.empty(); })) {
      const auto work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
      ++done_;
    }
  }

  Stream stream_;
  std::vector<std::pair<std::unique_ptr<std::byte[]>, std::unique_ptr<std::byte[]>>> pieces_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> queue_;
  std::uint64_t enqueued_ = 0, done_ = 0, mark_ = 0;
  Status lost_;
  std::jthread thread_;
};

}  // namespace thresher::comm
