#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stop_token>

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/comm/poll.h"
#include "common/comm/transfer.h"
#include "common/sync/condition.h"
#include "common/sync/named_thread.h"

namespace thresher::comm {
namespace {

// One MPI message carries at most this much: counts are int.
constexpr std::size_t kMaxMessageBytes = std::size_t{1} << 30;
// MPI guarantees tags up to this.
constexpr int kTagLimit = 32767;
constexpr int kAbortExitCode = 3;

std::string ErrorText(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, static_cast<std::size_t>(length));
}

// Ranks in different operations never take each other's message: they miss their deadlines instead,
// and both reports say which operation each was in.
int TagOf(const std::string& what) { return static_cast<int>(HashText128(what).low % kTagLimit); }

// MPI_Init_thread has no deadline of its own, and a rank that died meanwhile may leave the others
// in it for ever: then this process ends, and says why.
class StartWatchdog {
 public:
  explicit StartWatchdog(Duration deadline)
      : thread_("mpi start", [this, deadline](const std::stop_token&) {
          std::unique_lock lock(mutex_);
          if (ended_.WaitFor(lock, deadline, [this] { return done_; })) return;
          const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(deadline);
          std::fprintf(stderr, "MPI_Init_thread: not done after %lld ms: a rank died meanwhile?\n",
                       static_cast<long long>(ms.count()));
          std::_Exit(kAbortExitCode);
        }) {}
  ~StartWatchdog() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    ended_.NotifyAll();
    thread_.Join();
  }

 private:
  std::mutex mutex_;
  sync::Condition ended_;
  bool done_ = false;
  NamedThread thread_;  // last: it uses the members above
};

int InitMpi(std::chrono::milliseconds deadline, int* provided) {
  constexpr std::chrono::milliseconds kLeast = std::chrono::minutes(1);  // on a busy machine
  const StartWatchdog watchdog(std::max(deadline, kLeast));
  return MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, provided);
}

struct Pending {
  MPI_Request request = MPI_REQUEST_NULL;
  std::uint32_t peer = 0;
  std::size_t expected_bytes = 0;
  bool receive = false;
};

class MpiCommunicator : public TransferCommunicator {
 public:
  MpiCommunicator(MPI_Comm comm, LearnerRank rank, std::uint32_t size, bool finalize,
                  std::chrono::milliseconds deadline)
      : TransferCommunicator(rank, size), comm_(comm), finalize_(finalize), deadline_(deadline) {}

  ~MpiCommunicator() override {
    // Requests may still be pending on buffers that are gone: nothing of MPI may run again.
    if (aborted()) MPI_Abort(comm_, kAbortExitCode);
    MPI_Comm_free(&comm_);
    if (finalize_) MPI_Finalize();
  }

  const char* backend() const override { return "mpi"; }

 protected:
  Status Transfer(const Call& call) override {
    std::vector<Pending> pending;
    int tag = TagOf(call.what);
    for (const Incoming& receive : call.receives) {
      THRESHER_RETURN_IF_ERROR(Start(call, receive.from, receive.bytes.data(), receive.bytes.size(),
                                     tag,
                                     /*receive=*/true, pending));
    }
    for (const Outgoing& send : call.sends) {
      // MPI's interface is not const.
      THRESHER_RETURN_IF_ERROR(Start(call, send.to, const_cast<std::byte*>(send.bytes.data()),
                                     send.bytes.size(), tag, /*receive=*/false, pending));
    }
    return Wait(call, pending);
  }

 private:
  Status Start(const Call& call, std::uint32_t peer, std::byte* bytes, std::size_t size, int tag,
               bool receive, std::vector<Pending>& pending) {
    std::size_t begin = 0;
    do {  // once for an empty message
      std::size_t part = std::min(size - begin, kMaxMessageBytes);
      Pending& entry = pending.emplace_back();
      entry.peer = peer;
      entry.expected_bytes = part;
      entry.receive = receive;
      int count = static_cast<int>(part), other = static_cast<int>(peer);
      int code = receive
                     ? MPI_Irecv(bytes + begin, count, MPI_BYTE, other, tag, comm_, &entry.request)
                     : MPI_Isend(bytes + begin, count, MPI_BYTE, other, tag, comm_, &entry.request);
      if (code != MPI_SUCCESS) return Failed(call, peer, ErrorText(code));
      begin += part;
    } while (begin < size);
    return Status::Ok();
  }

  Status Wait(const Call& call, std::vector<Pending>& pending) {
    const Poller poller(SystemClock().Now() + deadline_);
    Status status = poller.Await([&]() -> Result<bool> {
      THRESHER_RETURN_IF_ERROR(Progress(call, pending));
      return pending.empty();
    });
    if (status.code() != StatusCode::kDeadlineExceeded) return status;
    return DeadlineExceeded(call.Prefix(rank()) + MissingText(PeersOf(pending), deadline_));
  }

  // Takes what has completed off the list.
  Status Progress(const Call& call, std::vector<Pending>& pending) {
    for (std::size_t i = 0; i < pending.size();) {
      int done = 0;
      MPI_Status status;
      int code = MPI_Test(&pending[i].request, &done, &status);
      if (code != MPI_SUCCESS) return Failed(call, pending[i].peer, ErrorText(code));
      if (!done) {
        ++i;
        continue;
      }
      int count = 0;
      if (pending[i].receive) MPI_Get_count(&status, MPI_BYTE, &count);
      if (pending[i].receive && static_cast<std::size_t>(count) != pending[i].expected_bytes) {
        return Failed(call, pending[i].peer,
                      "sent " + std::to_string(count) + " bytes; expected " +
                          std::to_string(pending[i].expected_bytes));
      }
      pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(i));
    }
    return Status::Ok();
  }

  Status Failed(const Call& call, std::uint32_t peer, const std::string& why) const {
    return Aborted(call.Prefix(rank()) + "rank " + std::to_string(peer) + ": " + why);
  }

  static std::vector<std::uint32_t> PeersOf(const std::vector<Pending>& pending) {
    std::vector<std::uint32_t> peers;
    for (const Pending& entry : pending) peers.push_back(entry.peer);
    return peers;
  }

  MPI_Comm comm_;
  const bool finalize_;
  const std::chrono::milliseconds deadline_;
};

}  // namespace

Result<std::unique_ptr<Communicator>> MakeMpi(std::chrono::milliseconds deadline) {
  int initialized = 0, finalized = 0, provided = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (finalized) return FailedPrecondition("MPI was finalised; it starts once in a process");
  int code = initialized ? MPI_Query_thread(&provided) : InitMpi(deadline, &provided);
  if (code != MPI_SUCCESS) return InternalError("MPI_Init_thread: " + ErrorText(code));
  if (provided < MPI_THREAD_SERIALIZED) {
    return FailedPrecondition("MPI gives thread level " + std::to_string(provided) +
                              "; allowed: MPI_THREAD_SERIALIZED or more");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm comm = MPI_COMM_NULL;
  code = MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  if (code != MPI_SUCCESS) return InternalError("MPI_Comm_dup: " + ErrorText(code));
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  int rank = 0, size = 1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  return std::unique_ptr<Communicator>(
      std::make_unique<MpiCommunicator>(comm, LearnerRank(static_cast<std::uint32_t>(rank)),
                                        static_cast<std::uint32_t>(size), !initialized, deadline));
}

}  // namespace thresher::comm
