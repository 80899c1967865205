// Compiled where there is a real nccl.h, and compares common/comm/nccl_abi.h with it. Nothing here
// runs.
#include <nccl.h>

#include <cstddef>
#include <type_traits>

#include "common/comm/nccl_abi.h"

namespace thresher::comm::nccl {
namespace {

static_assert(NCCL_VERSION_CODE >= kOldestVersion);
static_assert(NCCL_VERSION(2, 18, 0) == kOldestVersion);

static_assert(kSuccess == int{ncclSuccess} && kUnhandledCudaError == int{ncclUnhandledCudaError} &&
              kSystemError == int{ncclSystemError} && kInternalError == int{ncclInternalError} &&
              kInvalidArgument == int{ncclInvalidArgument} &&
              kInvalidUsage == int{ncclInvalidUsage} && kRemoteError == int{ncclRemoteError} &&
              kInProgress == int{ncclInProgress});
static_assert(kInt8 == int{ncclInt8} && kFloat32 == int{ncclFloat32} && kSum == int{ncclSum});

// Types that may stand for each other at the boundary: the same, or enumerations of one size, or
// the two structures that are compared below.
template <class Ours, class Theirs>
constexpr bool kAlike = [] {
  if constexpr (std::is_enum_v<Ours> && std::is_enum_v<Theirs>) {
    return sizeof(Ours) == sizeof(Theirs);
  } else {
    return std::is_same_v<Ours, Theirs> ||
           (std::is_same_v<Ours, UniqueId> && std::is_same_v<Theirs, ncclUniqueId>) ||
           (std::is_same_v<Ours, Config> && std::is_same_v<Theirs, ncclConfig_t>);
  }
}();
template <class Ours, class Theirs>
constexpr bool kAlike<Ours*, Theirs*> = kAlike<Ours, Theirs>;

template <class Ours, class Theirs>
struct Calls : std::false_type {};
template <class R1, class... A1, class R2, class... A2>
struct Calls<R1 (*)(A1...), R2(A2...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(A1) != sizeof...(A2)) {
      return false;
    } else {
      return kAlike<R1, R2> && (kAlike<A1, A2> && ...);
    }
  }();
};

#define THRESHER_SAME_CALL(name) \
  static_assert(Calls<decltype(Api::name), decltype(::nccl##name)>::value, "nccl" #name)
THRESHER_SAME_CALL(GetVersion);
THRESHER_SAME_CALL(GetUniqueId);
THRESHER_SAME_CALL(CommInitRankConfig);
THRESHER_SAME_CALL(CommGetAsyncError);
THRESHER_SAME_CALL(CommAbort);
THRESHER_SAME_CALL(CommFinalize);
THRESHER_SAME_CALL(CommDestroy);
THRESHER_SAME_CALL(GroupStart);
THRESHER_SAME_CALL(GroupEnd);
THRESHER_SAME_CALL(Send);
THRESHER_SAME_CALL(Recv);
THRESHER_SAME_CALL(Broadcast);
THRESHER_SAME_CALL(AllReduce);
THRESHER_SAME_CALL(GetErrorString);
THRESHER_SAME_CALL(GetLastError);
#undef THRESHER_SAME_CALL

static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId) && alignof(UniqueId) == 1 &&
              std::is_trivially_copyable_v<UniqueId>);

// Ours is the beginning of theirs.
#define THRESHER_SAME_FIELD(ours, theirs)                                   \
  static_assert(offsetof(Config, ours) == offsetof(ncclConfig_t, theirs) && \
                std::is_same_v<decltype(Config::ours), decltype(ncclConfig_t::theirs)>)
THRESHER_SAME_FIELD(size, size);
THRESHER_SAME_FIELD(magic, magic);
THRESHER_SAME_FIELD(version, version);
THRESHER_SAME_FIELD(blocking, blocking);
THRESHER_SAME_FIELD(cga_cluster_size, cgaClusterSize);
THRESHER_SAME_FIELD(min_ctas, minCTAs);
THRESHER_SAME_FIELD(max_ctas, maxCTAs);
THRESHER_SAME_FIELD(net_name, netName);
THRESHER_SAME_FIELD(split_share, splitShare);
#undef THRESHER_SAME_FIELD
static_assert(sizeof(Config) <= sizeof(ncclConfig_t));

constexpr ncclConfig_t kTheirs = NCCL_CONFIG_INITIALIZER;
constexpr Config kOurs;
static_assert(kOurs.magic == kTheirs.magic && kOurs.blocking == kTheirs.blocking &&
              kOurs.cga_cluster_size == kTheirs.cgaClusterSize &&
              kOurs.split_share == kTheirs.splitShare && kOurs.net_name == kTheirs.netName);

}  // namespace
}  // namespace thresher::comm::nccl
