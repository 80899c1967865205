#include <algorithm>
#include <bit>

#include "common/base/check.h"
#include "common/comm/communicator.h"

namespace thresher::comm {
namespace {

// Where a range is cut in two: at a multiple of `grain` of it.
std::size_t Middle(const TreeRange& range, std::size_t grain) {
  const std::size_t grains = (range.size() + grain - 1) / grain;
  return range.begin + grains / 2 * grain;
}

Status CheckTree(const Communicator& comm, const char* what) {
  if (std::has_single_bit(comm.size())) return Status::Ok();
  return InvalidArgument(std::string("tree ") + what + " over " + std::to_string(comm.size()) +
                         " ranks; allowed: a power of two");
}

Status RunSteps(Communicator& comm, std::span<float> data, std::span<const TreeStep> steps,
                std::string_view operation) {
  std::size_t largest = 0;
  for (const TreeStep& step : steps) {
    if (step.use != TreeStep::Use::kStore) largest = std::max(largest, step.take_count);
  }
  std::vector<float> received(largest);
  for (const TreeStep& step : steps) {
    const std::span<float> own = data.subspan(step.take_begin, step.take_count);
    const bool store = step.use == TreeStep::Use::kStore;
    const std::span<float> in = store ? own : std::span(received).first(step.take_count);
    THRESHER_RETURN_IF_ERROR(
        comm.Exchange(step.peer, data.subspan(step.give_begin, step.give_count), in, operation));
    for (std::size_t i = 0; !store && i < in.size(); ++i) {
      own[i] = step.use == TreeStep::Use::kAddRight ? own[i] + in[i] : in[i] + own[i];
    }
  }
  return Status::Ok();
}

}  // namespace

// Reduce-scatter: at level d partners at distance 2^d hold the same range; the lower rank keeps its
// lower half, the other the upper one, and each adds the partner's part. After the last level every
// rank owns one range of the full sum; the way back hands the ranges round. An element is added by
// one rank only at each level, so all ranks end with the same bits.
std::vector<TreeStep> TreeSteps(LearnerRank rank, std::uint32_t ranks, std::size_t count,
                                std::size_t grain) {
  THRESHER_CHECK(std::has_single_bit(ranks) && rank.value < ranks,
                 "a tree over " + std::to_string(ranks) + " ranks");
  std::vector<TreeStep> steps;
  std::vector<TreeRange> path;  // my range before each level
  TreeRange mine{0, count};
  for (std::uint32_t distance = 1; distance < ranks; distance *= 2) {
    path.push_back(mine);
    const std::size_t middle = Middle(mine, grain);
    const bool lower = (rank.value & distance) == 0;
    const TreeRange keep = lower ? TreeRange{mine.begin, middle} : TreeRange{middle, mine.end};
    const TreeRange give = lower ? TreeRange{middle, mine.end} : TreeRange{mine.begin, middle};
    steps.push_back({LearnerRank(rank.value ^ distance), give.begin, give.size(), keep.begin,
                     keep.size(), lower ? TreeStep::Use::kAddRight : TreeStep::Use::kAddLeft});
    mine = keep;
  }
  for (std::uint32_t distance = ranks / 2; distance >= 1; distance /= 2) {
    const TreeRange whole = path.back();
    path.pop_back();
    const bool lower = (rank.value & distance) == 0;
    const TreeRange other =
        lower ? TreeRange{mine.end, whole.end} : TreeRange{whole.begin, mine.begin};
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

TreeRange TreeShard(LearnerRank rank, std::uint32_t ranks, std::size_t count, std::size_t grain) {
  TreeRange mine{0, count};
  for (std::uint32_t distance = 1; distance < ranks; distance *= 2) {
    const std::size_t middle = Middle(mine, grain);
    ((rank.value & distance) == 0 ? mine.end : mine.begin) = middle;
  }
  return mine;
}

Status TreeReduceScatter(Communicator& comm, std::span<float> data, std::size_t grain,
                         std::string_view operation) {
  THRESHER_RETURN_IF_ERROR(CheckTree(comm, "reduce-scatter"));
  const auto steps = TreeSteps(comm.rank(), comm.size(), data.size(), grain);
  return RunSteps(comm, data, std::span(steps).first(steps.size() / 2), operation);
}

Status TreeAllGather(Communicator& comm, std::span<float> data, std::size_t grain,
                     std::string_view operation) {
  THRESHER_RETURN_IF_ERROR(CheckTree(comm, "all-gather"));
  const auto steps = TreeSteps(comm.rank(), comm.size(), data.size(), grain);
  return RunSteps(comm, data, std::span(steps).last(steps.size() / 2), operation);
}

Status TreeAllReduce(Communicator& comm, std::span<float> data, std::string_view operation) {
  THRESHER_RETURN_IF_ERROR(CheckTree(comm, "all-reduce"));
  return RunSteps(comm, data, TreeSteps(comm.rank(), comm.size(), data.size()), operation);
}

}  // namespace thresher::comm
