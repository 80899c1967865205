#include "common/comm/nccl.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "common/base/check.h"
#include "common/log/log.h"

namespace thresher::comm {

using nccl::Code;

// What peers tell each other before an operation.
struct NcclCommunicator::Greeting {
  std::uint64_t magic = 0;  // zero until it has come
  std::uint64_t sequence = 0;
  std::uint64_t to_you_bytes = 0, from_you_bytes = 0;
  char what[96] = {};  // cut, ends with a zero
};

namespace {

constexpr std::uint64_t kGreetingMagic = 0x5448524e43434c31;  // "THRNCCL1"
constexpr std::size_t kStagingBytes = std::size_t{32} << 20;
constexpr std::size_t kSmallestRound = std::size_t{64} << 10;
constexpr std::chrono::milliseconds kPeekPatience{1000};
constexpr int kExitCode = 3;

// Equal on all ranks: both sides of a transfer cut it alike.
std::size_t RoundBytes(std::uint32_t size) {
  return std::max(kSmallestRound, std::bit_floor(kStagingBytes / size));
}

// What a non-blocking call may return when all is well.
bool Fine(Code code) { return code == nccl::kSuccess || code == nccl::kInProgress; }

std::uint64_t BytesTo(const auto& call, std::uint32_t peer) {
  std::uint64_t bytes = 0;
  for (const auto& send : call.sends) bytes += send.to == peer ? send.bytes.size() : 0;
  return bytes;
}
std::uint64_t BytesFrom(const auto& call, std::uint32_t peer) {
  std::uint64_t bytes = 0;
  for (const auto& receive : call.receives) {
    bytes += receive.from == peer ? receive.bytes.size() : 0;
  }
  return bytes;
}

Status CheckEnvironment() {
  const char* blocking = std::getenv("NCCL_COMM_BLOCKING");
  if (blocking == nullptr || std::string_view(blocking) != "1") return Status::Ok();
  return FailedPrecondition(
      "NCCL: NCCL_COMM_BLOCKING=1 makes it wait for lost ranks for ever; unset it");
}

}  // namespace

// ---- making and ending

Result<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Make(const NcclOptions& options,
                                                                 const MakePort& make_port,
                                                                 const GatherStrings& gather) {
  THRESHER_CHECK(options.rank.value < options.size, "a rank outside its world");
  NcclHello hello;
  hello.rank = options.rank;
  hello.size = options.size;
  std::unique_ptr<NcclCommunicator> comm;
  const Status mine = [&]() -> Status {
    THRESHER_RETURN_IF_ERROR(CheckEnvironment());
    THRESHER_ASSIGN_OR_RETURN(const NcclLibrary* library,
                              options.library ? options.library() : ProcessNccl());
    hello.version = library->version;
    hello.library = library->path;
    THRESHER_ASSIGN_OR_RETURN(auto port, make_port());
    comm.reset(new NcclCommunicator(options, *library, std::move(port)));
    THRESHER_ASSIGN_OR_RETURN(comm->greetings_,
                              comm->port_->MakeStaging(2 * options.size * sizeof(Greeting)));
    if (options.rank.value != 0) return Status::Ok();
    const Code code = library->api.GetUniqueId(&hello.id);
    return code == nccl::kSuccess ? Status::Ok() : comm->Error(code);
  }();
  hello.failure = mine.message();
  // The others hear of a failure instead of waiting for this rank; that takes until they are there.
  if (!mine.ok()) LogWarning(mine.message() + "; the other ranks are told");
  Result<std::vector<std::string>> hellos = gather(EncodeHello(hello));
  if (!mine.ok()) return mine;
  if (!hellos.ok()) return hellos.status();
  THRESHER_ASSIGN_OR_RETURN(const nccl::UniqueId id, AgreeOnHellos(*hellos));
  THRESHER_RETURN_IF_ERROR(comm->Meet(id));
  return comm;
}

NcclCommunicator::NcclCommunicator(const NcclOptions& options, const NcclLibrary& library,
                                   std::unique_ptr<DevicePort> port)
    : TransferCommunicator(options.rank, options.size),
      api_(library.api),
      deadline_(options.deadline),
      end_patience_(options.end_patience),
      round_bytes_(RoundBytes(options.size)),
      port_(std::move(port)) {}

Status NcclCommunicator::Meet(const nccl::UniqueId& id) {
  nccl::Config config;
  config.blocking = 0;
  const Code code = api_.CommInitRankConfig(&comm_, static_cast<int>(size()), id,
                                            static_cast<int>(rank().value), &config);
  const std::string prefix =
      "rank " + std::to_string(rank().value) + ": meeting " + std::to_string(size()) + " ranks";
  Status status = Fine(code)
                      ? Poller(SystemClock().Now() + deadline_).Await([this] { return Settled(); })
                      : Error(code);
  if (status.ok()) return status;
  Abort();
  if (status.code() != StatusCode::kDeadlineExceeded) return status.WithContext(prefix);
  return DeadlineExceeded(prefix + ": not all came within " + std::to_string(deadline_.count()) +
                          " ms, though all had said hello: do their networks reach each other "
                          "(NCCL_SOCKET_IFNAME, firewall)?");
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ != nullptr) {
    const Poller poller(SystemClock().Now() + end_patience_);
    const bool ended =
        Fine(api_.CommFinalize(comm_)) && poller.Await([this] { return Settled(); }).ok();
    if (ended) {
      (void)api_.CommDestroy(std::exchange(comm_, nullptr));
    } else {
      Abort();
    }
  }
  std::unique_lock lock(mutex_);
  if (abort_changed_.wait_for(lock, end_patience_, [this] { return abort_returned_; })) return;
  LogError("NCCL: ncclCommAbort does not return; the process ends");
  FlushLog();
  std::_Exit(kExitCode);
}

void NcclCommunicator::Abort() {
  const nccl::Comm comm = std::exchange(comm_, nullptr);
  if (comm == nullptr) return;
  abort_returned_ = false;  // no other thread yet
  aborter_ = std::jthread([this, comm] {
    (void)api_.CommAbort(comm);
    const std::lock_guard lock(mutex_);
    abort_returned_ = true;
    abort_changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  if (!abort_changed_.wait_for(lock, end_patience_, [this] { return abort_returned_; })) {
    LogWarning("NCCL: ncclCommAbort has not returned within " +
               std::to_string(end_patience_.count()) + " ms");
  }
}

// ---- waiting

Status NcclCommunicator::Error(Code code) const {
  const char* detail = api_.GetLastError(comm_);
  std::string text = std::string("NCCL: ") + api_.GetErrorString(code);
  if (detail != nullptr && *detail != '\0') text += std::string(": ") + detail;
  return Aborted(text);
}

Result<bool> NcclCommunicator::Settled() const {
  Code state = nccl::kSuccess;
  const Code code = api_.CommGetAsyncError(comm_, &state);
  if (code != nccl::kSuccess) return Error(code);
  if (!Fine(state)) return Error(state);
  return state == nccl::kSuccess;
}

Status NcclCommunicator::Group(const Poller& poller, const std::function<Code()>& enqueue) {
  const Code started = api_.GroupStart();
  if (!Fine(started)) return Error(started);
  const Code queued = enqueue();
  const Code ended = api_.GroupEnd();
  if (!Fine(queued)) return Error(queued);
  if (!Fine(ended)) return Error(ended);
  return poller.Await([this] { return Settled(); });
}

Status NcclCommunicator::Finish(const Poller& poller) {
  THRESHER_RETURN_IF_ERROR(port_->Mark());
  return poller.Await([this]() -> Result<bool> {
    THRESHER_ASSIGN_OR_RETURN(const bool reached, port_->Reached());
    if (reached) return true;
    THRESHER_ASSIGN_OR_RETURN([[maybe_unused]] const bool settled, Settled());
    return false;
  });
}

// ---- hellos

void NcclCommunicator::WriteGreetings(const Call& call, const std::vector<std::uint32_t>& peers) {
  std::memset(greetings_.host, 0, greetings_.bytes);
  for (std::uint32_t peer : peers) {
    Greeting greeting;
    greeting.magic = kGreetingMagic;
    greeting.sequence = call.sequence;
    greeting.to_you_bytes = BytesTo(call, peer);
    greeting.from_you_bytes = BytesFrom(call, peer);
    std::memcpy(greeting.what, call.what.data(),
                std::min(call.what.size(), sizeof greeting.what - 1));
    std::memcpy(greetings_.host + peer * sizeof greeting, &greeting, sizeof greeting);
  }
}

Status NcclCommunicator::CheckGreetings(const Call& call,
                                        const std::vector<std::uint32_t>& peers) const {
  for (std::uint32_t peer : peers) {
    Greeting theirs;
    std::memcpy(&theirs, greetings_.host + (size() + peer) * sizeof theirs, sizeof theirs);
    theirs.what[sizeof theirs.what - 1] = '\0';
    const std::uint64_t to = BytesTo(call, peer), from = BytesFrom(call, peer);
    if (theirs.magic == kGreetingMagic && theirs.to_you_bytes == from &&
        theirs.from_you_bytes == to && call.what.substr(0, sizeof theirs.what - 1) == theirs.what) {
      continue;
    }
    return Aborted(call.Prefix(rank()) + "rank " + std::to_string(peer) + " is in " + theirs.what +
                   " #" + std::to_string(theirs.sequence) + ", which sends " +
                   std::to_string(theirs.to_you_bytes) + " bytes and expects " +
                   std::to_string(theirs.from_you_bytes) + "; expected " + std::to_string(from) +
                   " and " + std::to_string(to));
  }
  return Status::Ok();
}

// Those whose greeting has not come, though the stream may be stuck in waiting for it.
std::vector<std::uint32_t> NcclCommunicator::Silent(const std::vector<std::uint32_t>& peers) {
  const std::size_t half = size() * sizeof(Greeting);
  if (!port_->Peek(greetings_.host + half, greetings_.device + half, half, kPeekPatience).ok()) {
    return peers;
  }
  std::vector<std::uint32_t> silent;
  for (std::uint32_t peer : peers) {
    std::uint64_t magic = 0;
    std::memcpy(&magic, greetings_.host + half + peer * sizeof(Greeting), sizeof magic);
    if (magic != kGreetingMagic) silent.push_back(peer);
  }
  return silent.empty() ? peers : silent;
}

Status NcclCommunicator::Greet(const Call& call, const std::vector<std::uint32_t>& peers,
                               const Poller& poller) {
  const std::size_t half = size() * sizeof(Greeting);
  WriteGreetings(call, peers);
  const Status status = [&]() -> Status {
    THRESHER_RETURN_IF_ERROR(port_->ToDevice(greetings_.device, greetings_.host, 2 * half));
    THRESHER_RETURN_IF_ERROR(Group(poller, [&] {
      Code code = nccl::kSuccess;
      for (std::uint32_t peer : peers) {
        std::byte* mine = greetings_.device + peer * sizeof(Greeting);
        const int to = static_cast<int>(peer);
        if (Fine(code)) {
          code = api_.Send(mine, sizeof(Greeting), nccl::kInt8, to, comm_, port_->stream());
        }
        if (Fine(code)) {
          code = api_.Recv(mine + half, sizeof(Greeting), nccl::kInt8, to, comm_, port_->stream());
        }
      }
      return code;
    }));
    THRESHER_RETURN_IF_ERROR(port_->ToHost(greetings_.host + half, greetings_.device + half, half));
    return Finish(poller);
  }();
  if (status.ok()) return CheckGreetings(call, peers);
  if (status.code() != StatusCode::kDeadlineExceeded) {
    return {status.code(), call.Prefix(rank()) + status.message()};
  }
  return DeadlineExceeded(call.Prefix(rank()) + MissingText(Silent(peers), deadline_));
}

Status NcclCommunicator::Greeted(const Call& call,
                                 const std::function<Status(const Poller&)>& body) {
  const std::vector<std::uint32_t> peers = call.Peers();
  if (peers.empty()) return Status::Ok();
  const Poller poller(SystemClock().Now() + deadline_);
  Status status = Greet(call, peers, poller);
  if (status.ok()) {
    NoteStarted();
    status = body(poller);
    if (status.code() == StatusCode::kDeadlineExceeded) {
      status = DeadlineExceeded(MissingText(peers, deadline_) + ", after the operation had begun");
    }
    if (!status.ok()) status = {status.code(), call.Prefix(rank()) + status.message()};
  }
  if (!status.ok()) Abort();
  return status;
}

}  // namespace thresher::comm
