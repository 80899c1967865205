#include "learner/gradient_sync.h"

#include <algorithm>

#include "common/base/check.h"
#include "kernels/cpu/fpenv.h"
#include "learner/gradient.h"

namespace thresher::learner {
namespace {

// A wait has an end; a bucket comes when it comes.
constexpr std::chrono::minutes kLook{1};

double MillisecondsSince(TimePoint start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

}  // namespace

GradientSync::GradientSync(comm::Communicator& comm, const GradientSyncOptions& options)
    : comm_(comm),
      options_(options),
      buckets_(CutBuckets(options.count, options.bucket_bytes)),
      ready_(buckets_.size()),
      left_(buckets_.size()) {
  if (!options_.overlap || comm_.size() == 1) return;
  thread_ = sync::Task("reduce", [this](const std::stop_token& stop) { Loop(stop); });
}

GradientSync::~GradientSync() {
  {
    std::lock_guard lock(mutex_);
    thread_.RequestStop();
  }
  changed_.NotifyAll();
  thread_.Join();
}

void GradientSync::Ready(float* gradient, std::size_t from) {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    THRESHER_CHECK(gradient_ == nullptr || gradient_ == gradient, "another step's gradient");
    gradient_ = gradient;
    while (ready_ > 0 && buckets_[ready_ - 1].begin >= from) --ready_;
  }
  changed_.NotifyAll();
}

Status GradientSync::Reduce(std::size_t index) {
  const Piece& bucket = buckets_[index];
  const std::span<float> data(gradient_ + bucket.begin, bucket.count);
  return options_.scatter ? comm::TreeReduceScatter(comm_, data, kNormBlock, "gradient")
                          : comm::TreeAllReduce(comm_, data, "gradient");
}

void GradientSync::Loop(const std::stop_token& stop) {
  kernels::PinFpEnv();
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (ready_ >= left_ || Over()) {
      changed_.WaitFor(lock, kLook,
                       [&] { return stop.stop_requested() || (ready_ < left_ && !Over()); });
      continue;
    }
    const std::size_t index = left_ - 1;
    lock.unlock();
    const TimePoint start = SystemClock().Now();
    const Status status = Reduce(index);
    const double took = MillisecondsSince(start);
    lock.lock();
    figures_.reduce_ms += took;
    status_ = status;
    left_ = index;
    if (Over()) changed_.NotifyAll();
  }
}

Status GradientSync::Finish(float* gradient) {
  if (comm_.size() == 1) return Status::Ok();
  const TimePoint start = SystemClock().Now();
  Ready(gradient, 0);
  std::unique_lock lock(mutex_);
  gradient_ = gradient;
  if (thread_.joinable()) {
    while (!changed_.WaitFor(lock, kLook, [this] { return Over(); })) {
    }
  } else {
    while (!Over()) status_ = Reduce(--left_);
    figures_.reduce_ms = MillisecondsSince(start);
  }
  figures_.wait_ms = MillisecondsSince(start);
  gradient_ = nullptr;
  ready_ = left_ = buckets_.size();
  return status_;
}

}  // namespace thresher::learner
