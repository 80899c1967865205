// The operations of NcclCommunicator: host memory through pinned and device staging, device memory
// as it lies.
#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/check.h"
#include "common/comm/nccl.h"

namespace thresher::comm {

using nccl::Code;

namespace {

constexpr std::size_t kSlotGranule = 4096;

// What a transfer of `bytes` has in the round that begins at `begin`.
std::size_t PartBytes(std::size_t bytes, std::size_t begin, std::size_t round) {
  return begin < bytes ? std::min(bytes - begin, round) : 0;
}

bool Fine(Code code) { return code == nccl::kSuccess || code == nccl::kInProgress; }

}  // namespace

Status NcclCommunicator::ReserveSlots(std::size_t transfers, std::size_t largest_bytes) {
  slot_bytes_ =
      (std::min(largest_bytes, round_bytes_) + kSlotGranule - 1) / kSlotGranule * kSlotGranule;
  const std::size_t bytes = std::bit_ceil(transfers * slot_bytes_);
  if (bytes <= slots_.bytes) return Status::Ok();
  if (slots_.bytes > 0) port_->Return(std::exchange(slots_, {}));
  THRESHER_ASSIGN_OR_RETURN(slots_, port_->MakeStaging(bytes));
  return Status::Ok();
}

Status NcclCommunicator::TransferRound(const Call& call, std::size_t begin, const Poller& poller) {
  struct Part {
    std::size_t slot, bytes;
    int peer;
  };
  std::vector<Part> out, in;
  for (std::size_t i = 0; i < call.sends.size(); ++i) {
    const Outgoing& send = call.sends[i];
    const std::size_t bytes = PartBytes(send.bytes.size(), begin, round_bytes_);
    if (bytes == 0) continue;
    const std::size_t slot = i * slot_bytes_;
    std::memcpy(slots_.host + slot, send.bytes.data() + begin, bytes);
    THRESHER_RETURN_IF_ERROR(port_->ToDevice(slots_.device + slot, slots_.host + slot, bytes));
    out.push_back({slot, bytes, static_cast<int>(send.to)});
  }
  for (std::size_t i = 0; i < call.receives.size(); ++i) {
    const Incoming& receive = call.receives[i];
    const std::size_t bytes = PartBytes(receive.bytes.size(), begin, round_bytes_);
    const std::size_t slot = (call.sends.size() + i) * slot_bytes_;
    if (bytes > 0) in.push_back({slot, bytes, static_cast<int>(receive.from)});
  }
  THRESHER_RETURN_IF_ERROR(Group(poller, [&] {
    Code code = nccl::kSuccess;
    for (const Part& part : out) {
      if (!Fine(code)) return code;
      code = api_.Send(slots_.device + part.slot, part.bytes, nccl::kInt8, part.peer, comm_,
                       port_->stream());
    }
    for (const Part& part : in) {
      if (!Fine(code)) return code;
      code = api_.Recv(slots_.device + part.slot, part.bytes, nccl::kInt8, part.peer, comm_,
                       port_->stream());
    }
    return code;
  }));
  for (const Part& part : in) {
    THRESHER_RETURN_IF_ERROR(
        port_->ToHost(slots_.host + part.slot, slots_.device + part.slot, part.bytes));
  }
  THRESHER_RETURN_IF_ERROR(Finish(poller));
  for (std::size_t i = 0; i < call.receives.size(); ++i) {
    const std::span<std::byte> to = call.receives[i].bytes;
    const std::size_t bytes = PartBytes(to.size(), begin, round_bytes_);
    const std::size_t slot = (call.sends.size() + i) * slot_bytes_;
    if (bytes > 0) std::memcpy(to.data() + begin, slots_.host + slot, bytes);
  }
  return Status::Ok();
}

Status NcclCommunicator::Transfer(const Call& call) {
  std::size_t largest = 0;
  for (const Outgoing& send : call.sends) largest = std::max(largest, send.bytes.size());
  for (const Incoming& receive : call.receives) largest = std::max(largest, receive.bytes.size());
  return Greeted(call, [&](const Poller& poller) -> Status {
    if (largest == 0) return Status::Ok();
    THRESHER_RETURN_IF_ERROR(ReserveSlots(call.sends.size() + call.receives.size(), largest));
    for (std::size_t begin = 0; begin < largest; begin += round_bytes_) {
      THRESHER_RETURN_IF_ERROR(TransferRound(call, begin, poller));
    }
    return Status::Ok();
  });
}

// ---- device memory

Status NcclCommunicator::RunOnDevice(const Call& call, nccl::Stream after,
                                     const std::function<Code()>& enqueue,
                                     const std::function<Status()>& then) {
  return Run(call, [&](const Call& run) {
    return Greeted(run, [&](const Poller& poller) -> Status {
      THRESHER_RETURN_IF_ERROR(port_->WaitFor(after));
      THRESHER_RETURN_IF_ERROR(Group(poller, enqueue));
      if (then) THRESHER_RETURN_IF_ERROR(then());
      return Finish(poller);
    });
  });
}

Status NcclCommunicator::ExchangeOnDevice(LearnerRank peer, std::span<const float> out,
                                          std::span<float> in, nccl::Stream after,
                                          std::string_view operation) {
  return ExchangeThen(peer, out, in, after, operation, {});
}

Status NcclCommunicator::ExchangeThen(LearnerRank peer, std::span<const float> out,
                                      std::span<float> in, nccl::Stream after,
                                      std::string_view operation,
                                      const std::function<Status()>& then) {
  THRESHER_CHECK(peer.value < size() && peer != rank(),
                 "exchange with rank " + std::to_string(peer.value));
  Call call = NewCall("exchange", operation);
  call.sends.push_back({peer.value, std::as_bytes(out)});
  call.receives.push_back({peer.value, std::as_writable_bytes(in)});
  const int other = static_cast<int>(peer.value);
  const auto enqueue = [&] {
    Code code = nccl::kSuccess;
    if (!out.empty()) {
      code = api_.Send(out.data(), out.size(), nccl::kFloat32, other, comm_, port_->stream());
    }
    if (Fine(code) && !in.empty()) {
      code = api_.Recv(in.data(), in.size(), nccl::kFloat32, other, comm_, port_->stream());
    }
    return code;
  };
  return RunOnDevice(call, after, enqueue, then);
}

Status NcclCommunicator::BroadcastOnDevice(LearnerRank root, std::span<std::byte> bytes,
                                           nccl::Stream after, std::string_view operation) {
  THRESHER_CHECK(root.value < size(), "broadcast from rank " + std::to_string(root.value));
  Call call = NewCall("device broadcast", operation);
  // Every rank greets every other: NCCL's broadcast goes through any of them.
  for (std::uint32_t r = 0; r < size(); ++r) {
    if (r == rank().value) continue;
    call.sends.push_back({r, root == rank() ? bytes : bytes.first(0)});
    call.receives.push_back({r, root.value == r ? bytes : bytes.first(0)});
  }
  return RunOnDevice(call, after, [&] {
    return api_.Broadcast(bytes.data(), bytes.data(), bytes.size(), nccl::kInt8,
                          static_cast<int>(root.value), comm_, port_->stream());
  });
}

Status NcclCommunicator::AllReduceOnDevice(std::span<float> data, nccl::Stream after,
                                           std::string_view operation) {
  Call call = NewCall("all-reduce", operation);
  for (std::uint32_t r = 0; r < size(); ++r) {
    if (r == rank().value) continue;
    call.sends.push_back({r, std::as_bytes(data)});
    call.receives.push_back({r, std::as_writable_bytes(data)});
  }
  return RunOnDevice(call, after, [&] {
    return api_.AllReduce(data.data(), data.data(), data.size(), nccl::kFloat32, nccl::kSum, comm_,
                          port_->stream());
  });
}

Status NcclCommunicator::TreeAllReduceOnDevice(std::span<float> data, std::span<float> scratch,
                                               nccl::Stream after, std::string_view operation) {
  if (!std::has_single_bit(size())) {
    return InvalidArgument("tree all-reduce over " + std::to_string(size()) +
                           " ranks; allowed: a power of two");
  }
  if (scratch.size() < (data.size() + 1) / 2) {
    return InvalidArgument("tree all-reduce of " + std::to_string(data.size()) +
                           " values with scratch for " + std::to_string(scratch.size()) +
                           "; needed: half of them, rounded up");
  }
  for (const TreeStep& step : TreeSteps(rank(), size(), data.size())) {
    const std::span<float> own = data.subspan(step.take_begin, step.take_count);
    const bool store = step.use == TreeStep::Use::kStore;
    const std::span<float> in = store ? own : scratch.first(step.take_count);
    const auto add = [&] {
      if (store || in.empty()) return Status::Ok();
      return port_->Add(own.data(), in.data(), in.size(), step.use == TreeStep::Use::kAddLeft);
    };
    THRESHER_RETURN_IF_ERROR(ExchangeThen(step.peer, data.subspan(step.give_begin, step.give_count),
                                          in, after, operation, add));
  }
  return Status::Ok();
}

}  // namespace thresher::comm
