// The broker's handling of whatever its peers may say: a true broker over a scripted network
// (script.h), from its first start through deaths and recoveries from its own files. A new run
// directory below TMPDIR for each input.

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string_view>

#include "tests/fuzz/broker/script.h"

namespace {

// An input is a whole run: what it was made of is told at the end.
struct Total {
  std::uint64_t frames = 0, refused = 0;
  ~Total() {
    std::fprintf(stderr, "%llu frames, %llu of them of somebody who may not speak\n",
                 static_cast<unsigned long long>(frames), static_cast<unsigned long long>(refused));
  }
} total;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace thresher;  // NOLINT: one function
  // Small segments: what is preallocated in memory takes longer than all the rest.
  static const Config config =
      broker::TinyConfig({"journal.segment_bytes=1048576", "broker.max_message_bytes=1048576",
                          "sampling.max_new_tokens=4", "actors.partial_tokens=1"});
  const Hash128 run_id = HashText128("the run");
  broker::TemporaryFolder folder;
  std::ofstream(folder.path() / "manifest.json") << R"({"run_id": ")" << run_id.ToString() << "\"}";
  broker::BrokerOptions options;
  options.run = folder.path();
  options.http = "none";
  fuzz::Script script(fuzz::Recipe(std::string_view(reinterpret_cast<const char*>(data), size)),
                      config, run_id);
  while (script.Live(options)) {
  }
  total.frames += script.frames();
  total.refused += script.refused();
  net::RemoveSocketFolder(folder.path());
  return 0;
}
