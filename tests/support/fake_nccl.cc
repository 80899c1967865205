#include "tests/support/fake_nccl.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/comm/nccl_abi.h"

using namespace thresher::comm::nccl;

namespace {

FakeNcclControls g_controls;

using Bytes = std::vector<char>;

// What the ranks that met under one id share. All fields under `mutex`.
struct World {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0;
  std::vector<bool> joined;
  int present = 0;
  std::map<std::pair<int, int>, std::deque<Bytes>> channels;  // (from, to), in order
  bool broken = false;                                        // a rank aborted
  // Of each all-reduce in order: the values of the ranks.
  std::map<std::uint64_t, std::map<int, std::vector<float>>> sums;
  std::map<std::uint64_t, Bytes> broadcasts;
};

std::mutex g_mutex;  // guards g_worlds, g_ids and g_aborted
std::map<std::string, std::shared_ptr<World>> g_worlds;
std::uint64_t g_ids = 0;
// Kept to the end of the process: their work may still be on a stream.
auto& g_aborted = *new std::vector<ncclComm*>;

// One piece of work of a group; false: it was interrupted.
using Work = std::function<bool()>;

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  // Under world->mutex.
  bool aborted = false;
  Code error = kSuccess;
  // Of the thread that owns the communicator.
  bool settled = false;
  int polls = 0;  // "in progress" still to be said
  bool finalizing = false;
  std::function<void()> launch;  // done when the communicator settles
  std::uint64_t collectives = 0;
};

namespace {

struct Group {
  int depth = 0;
  std::vector<std::pair<Comm, Work>> work;
  Stream stream = nullptr;
};
thread_local Group g_group;
thread_local std::string g_last_error;

Code Misuse(const std::string& what) {
  ++g_controls.misuses;
  g_last_error = "fake: " + what;
  return kInvalidUsage;
}

// Waits under the world's lock until `there`; false when the communicator was aborted.
template <class There>
bool WaitFor(ncclComm& comm, std::unique_lock<std::mutex>& lock, There there) {
  comm.world->changed.wait(lock, [&] { return comm.aborted || there(); });
  return !comm.aborted;
}

void Copy(void* to, const void* from, std::size_t bytes) {
  const auto copy = g_controls.copy.load();
  if (copy == nullptr) {
    std::memcpy(to, from, bytes);
  } else if (bytes > 0) {
    copy(to, from, bytes);
  }
}

Work SendWork(ncclComm* comm, const void* data, std::size_t bytes, int peer) {
  return [=] {
    Bytes message(bytes);
    Copy(message.data(), data, bytes);
    const std::lock_guard lock(comm->world->mutex);
    comm->world->channels[{comm->rank, peer}].push_back(std::move(message));
    comm->world->changed.notify_all();
    return true;
  };
}

Work ReceiveWork(ncclComm* comm, void* data, std::size_t bytes, int peer) {
  return [=] {
    World& world = *comm->world;
    std::unique_lock lock(world.mutex);
    auto& channel = world.channels[{peer, comm->rank}];
    if (!WaitFor(*comm, lock, [&] { return !channel.empty(); })) return false;
    const Bytes message = std::move(channel.front());
    channel.pop_front();
    lock.unlock();
    if (message.size() != bytes) {  // the real one would mix up data here
      ++g_controls.misuses;
      lock.lock();
      comm->error = kInternalError;
      return false;
    }
    Copy(data, message.data(), bytes);
    return true;
  };
}

Work SumWork(ncclComm* comm, const float* send, float* receive, std::size_t count,
             std::uint64_t number) {
  return [=] {
    World& world = *comm->world;
    std::unique_lock lock(world.mutex);
    world.sums[number][comm->rank].assign(send, send + count);
    world.changed.notify_all();
    auto& parts = world.sums[number];
    if (!WaitFor(*comm, lock, [&] { return static_cast<int>(parts.size()) == world.size; })) {
      return false;
    }
    for (std::size_t i = 0; i < count; ++i) {  // from left to right: not the strict tree
      float sum = 0;
      for (const auto& [rank, values] : parts) sum += values[i];
      receive[i] = sum;
    }
    return true;
  };
}

Work BroadcastWork(ncclComm* comm, const void* send, void* receive, std::size_t bytes, int root,
                   std::uint64_t number) {
  return [=] {
    World& world = *comm->world;
    std::unique_lock lock(world.mutex);
    if (comm->rank == root) {
      const char* begin = static_cast<const char*>(send);
      world.broadcasts[number].assign(begin, begin + bytes);
      world.changed.notify_all();
    }
    if (!WaitFor(*comm, lock, [&] { return world.broadcasts.contains(number); })) return false;
    if (comm->rank != root) std::memcpy(receive, world.broadcasts[number].data(), bytes);
    return true;
  };
}

// Receives of one group are independent: each runs when its message has come.
void RunGroup(ncclComm* comm, const std::vector<Work>& work) {
  std::this_thread::sleep_for(std::chrono::milliseconds(g_controls.delay_ms));
  if (g_controls.deaf_rank == comm->rank) {
    std::unique_lock lock(comm->world->mutex);
    WaitFor(*comm, lock, [] { return false; });
    return;
  }
  std::vector<std::jthread> threads;
  for (const Work& piece : work) threads.emplace_back([&piece] { (void)piece(); });
}

void Unsettle(ncclComm& comm, std::function<void()> launch) {
  comm.settled = false;
  comm.polls = g_controls.in_progress;
  comm.launch = std::move(launch);
}

Code FlushGroup() {
  Group group = std::exchange(g_group, Group{});
  if (group.work.empty()) return kSuccess;
  Comm comm = group.work.front().first;
  std::vector<Work> work;
  for (auto& [owner, piece] : group.work) {
    if (owner != comm) return Misuse("two communicators in a group");
    work.push_back(std::move(piece));
  }
  if (g_controls.failing_rank == comm->rank) {
    const std::lock_guard lock(comm->world->mutex);
    comm->error = kSystemError;
  }
  auto* stream = reinterpret_cast<FakeStream*>(group.stream);
  Unsettle(*comm, [comm, stream, work = std::move(work)] {
    auto* job = new std::function<void()>([comm, work] { RunGroup(comm, work); });
    stream->enqueue(
        stream,
        [](void* argument) {
          const std::unique_ptr<std::function<void()>> run(
              static_cast<std::function<void()>*>(argument));
          (*run)();
        },
        job);
  });
  return kInProgress;
}

Code Add(Comm comm, Stream stream, Work work) {
  if (!comm->settled) return Misuse("a call before the last one has settled");
  if (!g_group.work.empty() && g_group.stream != stream) return Misuse("two streams in a group");
  g_group.stream = stream;
  g_group.work.emplace_back(comm, std::move(work));
  return g_group.depth > 0 ? kSuccess : FlushGroup();
}

// Whether all that a call has to wait for has come.
bool Complete(ncclComm& comm) {
  if (comm.finalizing) return !g_controls.finalize_hangs;
  const std::lock_guard lock(comm.world->mutex);
  return comm.world->present == comm.world->size;
}

std::size_t SizeOf(DataType type) { return type == kFloat32 ? 4 : 1; }

}  // namespace

extern "C" {

FakeNcclControls* fake_nccl_controls() { return &g_controls; }

Code ncclGetVersion(int* version) {
  *version = g_controls.version;
  return kSuccess;
}

Code ncclGetUniqueId(UniqueId* id) {
  const std::lock_guard lock(g_mutex);
  std::memset(id, 0, sizeof *id);
  const std::string text = "fake-" + std::to_string(++g_ids);
  std::memcpy(id->internal, text.data(), text.size());
  return kSuccess;
}

Code ncclCommInitRankConfig(Comm* comm, int ranks, UniqueId id, int rank, Config* config) {
  *comm = nullptr;
  if (config == nullptr || config->magic != 0xcafebeef || config->size != sizeof(Config) ||
      config->version != kOldestVersion || config->blocking != 0) {
    return kInvalidArgument;
  }
  if (ranks < 1 || rank < 0 || rank >= ranks) return kInvalidArgument;
  auto made = std::make_unique<ncclComm>();
  {
    const std::lock_guard lock(g_mutex);
    auto& world = g_worlds[std::string(id.internal)];
    if (world == nullptr) world = std::make_shared<World>();
    made->world = world;
  }
  World& world = *made->world;
  const std::lock_guard lock(world.mutex);
  if (world.size == 0) world.joined.resize(ranks);
  if (world.size != 0 && world.size != ranks) return Misuse("worlds of two sizes");
  if (world.joined[rank]) return Misuse("two processes of one rank");
  world.size = ranks;
  world.joined[rank] = true;
  ++world.present;
  made->rank = rank;
  Unsettle(*made, {});
  ++g_controls.communicators;
  *comm = made.release();
  return kInProgress;
}

Code ncclCommGetAsyncError(Comm comm, Code* error) {
  {
    const std::lock_guard lock(comm->world->mutex);
    if (comm->error == kSuccess && comm->world->broken && g_controls.remote_errors) {
      comm->error = kRemoteError;
    }
    *error = comm->error;
  }
  if (*error != kSuccess || comm->settled) return kSuccess;
  *error = kInProgress;
  if (comm->polls > 0) {
    --comm->polls;
  } else if (Complete(*comm)) {
    comm->settled = true;
    if (comm->launch) std::exchange(comm->launch, nullptr)();
    *error = kSuccess;
  }
  return kSuccess;
}

Code ncclCommFinalize(Comm comm) {
  if (!comm->settled) return Misuse("finalize before the last call has settled");
  comm->finalizing = true;
  Unsettle(*comm, {});
  return kInProgress;
}

Code ncclCommDestroy(Comm comm) {
  if (!comm->finalizing || !comm->settled) return Misuse("destroy without finalize");
  --g_controls.communicators;
  delete comm;
  return kSuccess;
}

Code ncclCommAbort(Comm comm) {
  ++g_controls.aborts;
  {
    const std::lock_guard lock(comm->world->mutex);
    comm->aborted = true;
    comm->world->broken = true;
    comm->world->changed.notify_all();
  }
  {
    const std::lock_guard lock(g_mutex);
    g_aborted.push_back(comm);
  }
  while (g_controls.abort_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  --g_controls.communicators;
  return kSuccess;
}

Code ncclGroupStart() {
  ++g_group.depth;
  return kSuccess;
}

Code ncclGroupEnd() {
  if (g_group.depth == 0) return Misuse("the end of a group that did not start");
  if (--g_group.depth > 0) return kSuccess;
  return FlushGroup();
}

Code ncclSend(const void* data, std::size_t count, DataType type, int peer, Comm comm,
              Stream stream) {
  return Add(comm, stream, SendWork(comm, data, count * SizeOf(type), peer));
}

Code ncclRecv(void* data, std::size_t count, DataType type, int peer, Comm comm, Stream stream) {
  return Add(comm, stream, ReceiveWork(comm, data, count * SizeOf(type), peer));
}

Code ncclBroadcast(const void* send, void* receive, std::size_t count, DataType type, int root,
                   Comm comm, Stream stream) {
  return Add(comm, stream,
             BroadcastWork(comm, send, receive, count * SizeOf(type), root, ++comm->collectives));
}

Code ncclAllReduce(const void* send, void* receive, std::size_t count, DataType type,
                   RedOp operation, Comm comm, Stream stream) {
  if (type != kFloat32 || operation != kSum) return kInvalidArgument;
  return Add(comm, stream,
             SumWork(comm, static_cast<const float*>(send), static_cast<float*>(receive), count,
                     ++comm->collectives));
}

const char* ncclGetErrorString(Code code) {
  switch (code) {
    case kSystemError:
      return "unhandled system error";
    case kInternalError:
      return "internal error";
    case kInvalidArgument:
      return "invalid argument";
    case kInvalidUsage:
      return "invalid usage";
    case kRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(Comm) { return g_last_error.c_str(); }

}  // extern "C"
