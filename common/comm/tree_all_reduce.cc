#include <bit>

#include "common/base/check.h"
#include "common/comm/communicator.h"

namespace thresher::comm {
namespace {

struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

}  // namespace

// Reduce-scatter: at level d partners at distance 2^d hold the same range; the lower rank keeps its
// lower half, the other the upper one, and each adds the partner's part. After the last level every
// rank owns one range of the full sum; the way back hands the ranges round. An element is added by
// one rank only at each level, so all ranks end with the same bits.
std::vector<TreeStep> TreeSteps(LearnerRank rank, std::uint32_t ranks, std::size_t count) {
  THRESHER_CHECK(std::has_single_bit(ranks) && rank.value < ranks,
                 "a tree over " + std::to_string(ranks) + " ranks");
  std::vector<TreeStep> steps;
  std::vector<Range> path;  // my range before each level
  Range mine{0, count};
  for (std::uint32_t distance = 1; distance < ranks; distance *= 2) {
    path.push_back(mine);
    const std::size_t middle = mine.begin + mine.size() / 2;
    const bool lower = (rank.value & distance) == 0;
    const Range keep = lower ? Range{mine.begin, middle} : Range{middle, mine.end};
    const Range give = lower ? Range{middle, mine.end} : Range{mine.begin, middle};
    steps.push_back({LearnerRank(rank.value ^ distance), give.begin, give.size(), keep.begin,
                     keep.size(), lower ? TreeStep::Use::kAddRight : TreeStep::Use::kAddLeft});
    mine = keep;
  }
  for (std::uint32_t distance = ranks / 2; distance >= 1; distance /= 2) {
    const Range whole = path.back();
    path.pop_back();
    const bool lower = (rank.value & distance) == 0;
    const Range other = lower ? Range{mine.end, whole.end} : Range{whole.begin, mine.begin};
    steps.push_back({LearnerRank(rank.value ^ distance), mine.begin, mine.size(), other.begin,
                     other.size(), TreeStep::Use::kStore});
    mine = whole;
  }
  return steps;
}

Status Communicator::TreeAllReduceOnDevice(std::span<float>, std::span<float>, CUstream_st*,
                                           std::string_view operation) {
  return FailedPrecondition(std::string(backend()) + ": '" + std::string(operation) +
                            "' of device memory, which only nccl reaches");
}

Status TreeAllReduce(Communicator& comm, std::span<float> data, std::string_view operation) {
  if (!std::has_single_bit(comm.size())) {
    return InvalidArgument("tree all-reduce over " + std::to_string(comm.size()) +
                           " ranks; allowed: a power of two");
  }
  std::vector<float> received((data.size() + 1) / 2);
  for (const TreeStep& step : TreeSteps(comm.rank(), comm.size(), data.size())) {
    const std::span<float> own = data.subspan(step.take_begin, step.take_count);
    const bool store = step.use == TreeStep::Use::kStore;
    const std::span<float> in = store ? own : std::span(received.data(), step.take_count);
    THRESHER_RETURN_IF_ERROR(
        comm.Exchange(step.peer, data.subspan(step.give_begin, step.give_count), in, operation));
    for (std::size_t i = 0; !store && i < in.size(); ++i) {
      own[i] = step.use == TreeStep::Use::kAddRight ? own[i] + in[i] : in[i] + own[i];
    }
  }
  return Status::Ok();
}

}  // namespace thresher::comm
