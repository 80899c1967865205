#pragma once

#include <climits>
#include <cstddef>

// The part of NCCL's C interface that common/comm/nccl.cc uses, declared here because the library
// is found when the program runs (nccl_library.h), so that it builds where there is no nccl.h.
// tests/unit/comm/nccl_header_check.cc compares every declaration with the real header where there
// is one. Source: nccl.h 2.18 to 2.32; NVIDIA NCCL user guide, "NCCL API".
struct ncclComm;     // a communicator
struct CUstream_st;  // what cudaStream_t points to

namespace thresher::comm::nccl {

using Comm = ncclComm*;
using Stream = CUstream_st*;

// 2.18.0, as ncclGetVersion counts: major * 10000 + minor * 100 + patch.
inline constexpr int kOldestVersion = 21800;

enum Code : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};
enum DataType : int { kInt8 = 0, kFloat32 = 7 };
enum RedOp : int { kSum = 0 };

struct UniqueId {
  char internal[128];
};

// ncclConfig_t as of 2.18. Later versions appended fields: a library copies `size` bytes over its
// own defaults, and resets what is newer than `version`, so this one suits them all.
struct Config {
  std::size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = kOldestVersion;
  int blocking = INT_MIN;  // INT_MIN and nullptr: the library's default
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
};

// The functions of one loaded library, each under its C name without the prefix "nccl".
struct Api {
  Code (*GetVersion)(int* version) = nullptr;
  Code (*GetUniqueId)(UniqueId* id) = nullptr;
  Code (*CommInitRankConfig)(Comm* comm, int ranks, UniqueId id, int rank,
                             Config* config) = nullptr;
  Code (*CommGetAsyncError)(Comm comm, Code* error) = nullptr;
  Code (*CommAbort)(Comm comm) = nullptr;
  Code (*CommFinalize)(Comm comm) = nullptr;
  Code (*CommDestroy)(Comm comm) = nullptr;
  Code (*GroupStart)() = nullptr;
  Code (*GroupEnd)() = nullptr;
  Code (*Send)(const void* data, std::size_t count, DataType type, int peer, Comm comm,
               Stream stream) = nullptr;
  Code (*Recv)(void* data, std::size_t count, DataType type, int peer, Comm comm,
               Stream stream) = nullptr;
  Code (*Broadcast)(const void* send, void* receive, std::size_t count, DataType type, int root,
                    Comm comm, Stream stream) = nullptr;
  Code (*AllReduce)(const void* send, void* receive, std::size_t count, DataType type,
                    RedOp operation, Comm comm, Stream stream) = nullptr;
  const char* (*GetErrorString)(Code code) = nullptr;
  const char* (*GetLastError)(Comm comm) = nullptr;
};

// visit(pointer to member of Api, "ncclGetVersion") for each of them.
template <class Visit>
constexpr void ForEachFunction(Visit&& visit) {
  visit(&Api::GetVersion, "ncclGetVersion");
  visit(&Api::GetUniqueId, "ncclGetUniqueId");
  visit(&Api::CommInitRankConfig, "ncclCommInitRankConfig");
  visit(&Api::CommGetAsyncError, "ncclCommGetAsyncError");
  visit(&Api::CommAbort, "ncclCommAbort");
  visit(&Api::CommFinalize, "ncclCommFinalize");
  visit(&Api::CommDestroy, "ncclCommDestroy");
  visit(&Api::GroupStart, "ncclGroupStart");
  visit(&Api::GroupEnd, "ncclGroupEnd");
  visit(&Api::Send, "ncclSend");
  visit(&Api::Recv, "ncclRecv");
  visit(&Api::Broadcast, "ncclBroadcast");
  visit(&Api::AllReduce, "ncclAllReduce");
  visit(&Api::GetErrorString, "ncclGetErrorString");
  visit(&Api::GetLastError, "ncclGetLastError");
}

}  // namespace thresher::comm::nccl
