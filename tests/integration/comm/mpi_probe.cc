// One rank of a test of the MPI communicator. Usage: comm_mpi_probe all|stuck|sizes|stopped
// DIR|elsewhere DIR.
//   all    every operation on every rank; exit 0 when all results are right
//   stuck  rank 1 does not come to the second exchange; rank 0 prints why it gave up
//   sizes  the two sides of an exchange disagree about its length; both print it
//   stopped    rank 1 is stopped by a signal; rank 0's watchdog, which has its files in DIR, says
//   so elsewhere  rank 1 is in another operation
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "common/comm/communicator.h"
#include "common/comm/watchdog.h"
#include "tests/unit/comm/comm_testing.h"

namespace {

using namespace thresher;
using namespace thresher::comm;
using namespace thresher::comm::testing;
using namespace std::chrono_literals;

int g_failures = 0;

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++g_failures;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
}
void ExpectOk(const Status& status) { Expect(status.ok(), status.ToString()); }

int RunAll(Communicator& comm) {
  const std::uint32_t rank = comm.rank().value, ranks = comm.size();
  for (std::size_t count : {0u, 1u, 7u, 1000u, 1000003u}) {
    std::vector<std::vector<float>> parts;
    for (std::uint32_t r = 0; r < ranks; ++r) parts.push_back(HardValues(r, count));
    std::vector<float> data = parts[rank];
    ExpectOk(TreeAllReduce(comm, data, "gradients"));
    Expect(SameBits(data, PairwiseSum(std::move(parts))),
           "bits of " + std::to_string(count) + " values");
  }
  std::uint32_t value = rank == ranks - 1 ? 42 : 0;
  ExpectOk(
      comm.Broadcast(LearnerRank(ranks - 1), std::as_writable_bytes(std::span(&value, 1)), "b"));
  Expect(value == 42, "broadcast");
  std::vector<std::uint32_t> all(ranks);
  ExpectOk(comm.AllGather(std::as_bytes(std::span(&rank, 1)),
                          std::as_writable_bytes(std::span(all)), "g"));
  for (std::uint32_t r = 0; r < ranks; ++r) Expect(all[r] == r, "all-gather");
  // A rank that is late within the deadline is waited for.
  if (rank == 0) std::this_thread::sleep_for(100ms);
  ExpectOk(comm.Barrier("end"));
  return g_failures == 0 ? 0 : 1;
}

int RunStuck(Communicator& comm) {
  std::vector<float> buffer(2), in(2);
  LearnerRank peer(comm.rank().value ^ 1);
  ExpectOk(comm.Exchange(peer, buffer, in, "gradients"));
  if (comm.rank().value == 1) std::this_thread::sleep_for(30s);  // ended by rank 0's abort
  Status status = comm.Exchange(peer, buffer, in, "gradients");
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

int RunSizes(Communicator& comm) {
  std::vector<float> one(1), two(2);
  bool first = comm.rank().value == 0;
  // Each expects two values; rank 1 sends one.
  Status status = comm.Exchange(LearnerRank(first ? 1 : 0), first ? two : one, two, "gradients");
  if (first)
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
  else
    std::this_thread::sleep_for(20s);  // so that the abort of rank 0 is what ends the job
  return 1;
}

// After one exchange rank 1 does `otherwise`, and rank 0 the next exchange.
template <typename Otherwise>
int RunWatched(Communicator& comm, const std::string& folder, Otherwise otherwise) {
  WatchdogOptions options;
  options.folder = folder;
  options.rank = comm.rank();
  options.size = comm.size();
  options.deadline = 3s;
  const auto watchdog = Watchdog::Start(comm.recorder(), options);
  ExpectOk(watchdog.status());
  std::vector<float> buffer(2), in(2);
  LearnerRank peer(comm.rank().value ^ 1);
  ExpectOk(comm.Exchange(peer, buffer, in, "gradients"));
  if (comm.rank().value == 1) {
    otherwise();
    std::this_thread::sleep_for(30s);  // ended by rank 0's abort
  }
  const Status status = comm.Exchange(peer, buffer, in, "gradients");
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::string mode = argc > 1 ? argv[1] : "";
  auto comm = MakeMpi(mode == "all" || mode == "sizes" ? 20s : 3s);
  if (!comm.ok()) {
    std::fprintf(stderr, "%s\n", comm.status().ToString().c_str());
    return 1;
  }
  if (mode == "all") return RunAll(**comm);
  if (mode == "stuck") return RunStuck(**comm);
  if (mode == "sizes") return RunSizes(**comm);
  const std::string folder = argc > 2 ? argv[2] : ".";
  if (mode == "stopped") return RunWatched(**comm, folder, [] { std::raise(SIGSTOP); });
  if (mode == "elsewhere") {
    return RunWatched(**comm, folder, [&] { (void)(*comm)->Barrier("end").ok(); });
  }
  std::fprintf(stderr, "usage: comm_mpi_probe all|stuck|sizes|stopped|elsewhere\n");
  return 2;
}
