#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <functional>

#include "common/comm/nccl.h"
#include "tests/support/host_port.h"
#include "tests/unit/comm/comm_testing.h"

// Groups of ranks over tests/support/fake_nccl.cc.
namespace thresher::comm::testing {

inline NcclSearch FakeSearch() {
  NcclSearch search;
  search.loaded.clear();
  search.candidates = {THRESHER_FAKE_NCCL};
  return search;
}
inline Result<const NcclLibrary*> FakeNccl() {
  static const Result<NcclLibrary> library = OpenNccl(FakeSearch());
  if (!library.ok()) return library.status();
  return &*library;
}
inline FakeNcclControls& Controls() {
  static auto* controls = [] {
    void* handle = dlopen(THRESHER_FAKE_NCCL, RTLD_NOW);
    THRESHER_CHECK(handle != nullptr, dlerror());
    return reinterpret_cast<FakeNcclControls* (*)()>(dlsym(handle, "fake_nccl_controls"))();
  }();
  return *controls;
}
inline void ResetControls() {
  FakeNcclControls& c = Controls();
  c.version = 23203;
  c.in_progress = c.delay_ms = 0;
  c.deaf_rank = c.failing_rank = -1;
  c.remote_errors = c.abort_hangs = c.finalize_hangs = false;
  c.aborts = c.misuses = 0;
}

struct NcclGroupOptions {
  std::chrono::milliseconds deadline{30000}, end_patience{10000};
  std::vector<HostPort*>* ports = nullptr;  // out, one a rank
  std::function<std::unique_ptr<HostPort>()> make_port{};  // empty: a HostPort
};
using Made = std::vector<Result<std::unique_ptr<NcclCommunicator>>>;
inline Made MakeNcclGroup(std::uint32_t size, const NcclGroupOptions& options) {
  Made made;
  for (std::uint32_t rank = 0; rank < size; ++rank) made.emplace_back(nullptr);
  if (options.ports != nullptr) options.ports->resize(size);
  MeetingPlace place(size);
  std::vector<std::jthread> threads;
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      NcclOptions mine;
      mine.rank = LearnerRank(rank);
      mine.size = size;
      mine.deadline = options.deadline;
      mine.end_patience = options.end_patience;
      mine.library = FakeNccl;
      made[rank] = NcclCommunicator::Make(
          mine,
          [&]() -> Result<std::unique_ptr<DevicePort>> {
            auto port = options.make_port ? options.make_port() : std::make_unique<HostPort>();
            if (options.ports != nullptr) (*options.ports)[rank] = port.get();
            return std::unique_ptr<DevicePort>(std::move(port));
          },
          place.Gather(LearnerRank(rank)));
    });
  }
  threads.clear();
  return made;
}

// A group that must come into being.
inline std::vector<std::unique_ptr<NcclCommunicator>> NcclGroup(
    std::uint32_t size, const NcclGroupOptions& options = {}) {
  std::vector<std::unique_ptr<NcclCommunicator>> group;
  for (auto& made : MakeNcclGroup(size, options)) {
    if (!made.ok()) ADD_FAILURE() << made.status().ToString();
    group.push_back(std::move(made).value());
  }
  return group;
}

// "local" or "nccl"; the test fails when it cannot be made.
inline Group MakeGroup(const std::string& backend, std::uint32_t size,
                       std::chrono::milliseconds deadline) {
  if (backend == "local") return MakeLocalGroup(size, deadline);
  ResetControls();
  Group group;
  for (auto& comm : NcclGroup(size, {.deadline = deadline})) group.push_back(std::move(comm));
  return group;
}

}  // namespace thresher::comm::testing
