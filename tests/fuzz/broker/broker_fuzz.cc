// The broker's handling of whatever its peers may say: a true broker over a scripted network
// (script.h), from its first start through deaths and recoveries from its own files. A new run
// directory below TMPDIR for each input.

#include <cstdint>
#include <fstream>
#include <string_view>

#include "tests/fuzz/broker/script.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace thresher;  // NOLINT: one function
  static const Config config = broker::TinyConfig();
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
  net::RemoveSocketFolder(folder.path());
  return 0;
}
