#include "common/comm/nccl_hello.h"

#include <algorithm>
#include <cstring>

#include "common/comm/nccl_library.h"

namespace thresher::comm {
namespace {

constexpr char kMagic[8] = {'T', 'H', 'R', 'N', 'C', 'C', 'L', '1'};  // the protocol's version too

// Plain bytes: all ranks run on one kind of machine.
struct Wire {
  char magic[8];
  std::uint32_t rank, size;
  std::int32_t version;
  char id[128];
  char library[256], failure[512];  // end with a zero
};

template <std::size_t kSize>
void PutText(char (&place)[kSize], const std::string& text) {
  std::memcpy(place, text.data(), std::min(text.size(), kSize - 1));
}

std::string Named(const NcclHello& hello) {
  return "rank " + std::to_string(hello.rank.value) + " has " + NcclVersionText(hello.version) +
         " (" + hello.library + ")";
}

Result<NcclHello> Decode(const std::string& bytes, std::size_t place) {
  Wire wire;
  if (bytes.size() != sizeof wire || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    return FailedPrecondition("NCCL: rank " + std::to_string(place) +
                              " speaks another protocol: all ranks need the same build");
  }
  std::memcpy(&wire, bytes.data(), sizeof wire);
  wire.library[sizeof wire.library - 1] = wire.failure[sizeof wire.failure - 1] = '\0';
  NcclHello hello;
  hello.rank = LearnerRank(wire.rank);
  hello.size = wire.size;
  hello.version = wire.version;
  hello.library = wire.library;
  hello.failure = wire.failure;
  std::memcpy(hello.id.internal, wire.id, sizeof wire.id);
  return hello;
}

}  // namespace

std::string EncodeHello(const NcclHello& hello) {
  Wire wire;
  std::memset(&wire, 0, sizeof wire);
  std::memcpy(wire.magic, kMagic, sizeof kMagic);
  wire.rank = hello.rank.value;
  wire.size = hello.size;
  wire.version = hello.version;
  std::memcpy(wire.id, hello.id.internal, sizeof wire.id);
  PutText(wire.library, hello.library);
  PutText(wire.failure, hello.failure);
  return {reinterpret_cast<const char*>(&wire), sizeof wire};
}

Result<nccl::UniqueId> AgreeOnHellos(const std::vector<std::string>& hellos) {
  std::vector<NcclHello> all;
  for (std::size_t place = 0; place < hellos.size(); ++place) {
    THRESHER_ASSIGN_OR_RETURN(NcclHello hello, Decode(hellos[place], place));
    if (hello.rank.value != place || hello.size != hellos.size()) {
      return InvalidArgument("NCCL: place " + std::to_string(place) + " of " +
                             std::to_string(hellos.size()) + " is taken by rank " +
                             std::to_string(hello.rank.value) + " of " +
                             std::to_string(hello.size));
    }
    all.push_back(std::move(hello));
  }
  if (all.empty()) return InvalidArgument("NCCL: no ranks");
  for (const NcclHello& hello : all) {
    if (hello.failure.empty()) continue;
    return FailedPrecondition("rank " + std::to_string(hello.rank.value) + ": " + hello.failure);
  }
  for (const NcclHello& hello : all) {
    if (hello.version == all[0].version) continue;
    return FailedPrecondition("NCCL versions differ: " + Named(all[0]) + ", " + Named(hello) +
                              "; all ranks need the same one (THRESHER_NCCL_LIBRARY names a file)");
  }
  return all[0].id;
}

GatherStrings GatherOver(Communicator& comm) {
  return [&comm](const std::string& mine) -> Result<std::vector<std::string>> {
    std::string all(mine.size() * comm.size(), '\0');
    THRESHER_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(mine)),
                                            std::as_writable_bytes(std::span(all)), "NCCL hellos"));
    std::vector<std::string> hellos;
    for (std::size_t r = 0; r < comm.size(); ++r) {
      hellos.push_back(all.substr(r * mine.size(), mine.size()));
    }
    return hellos;
  };
}

}  // namespace thresher::comm
