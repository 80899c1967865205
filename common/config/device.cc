#include "common/config/device.h"

#include <charconv>
#include <sstream>
#include <string_view>

#include "common/config/config.h"

namespace thresher {
namespace {

constexpr std::string_view kCudaIndex = "cuda:";

// The index in "cuda:3"; below 0: it is none.
int IndexOf(std::string_view text) {
  if (!text.starts_with(kCudaIndex)) return -1;
  const char* end = text.data() + text.size();
  int index = -1;
  const auto [stop, error] = std::from_chars(text.data() + kCudaIndex.size(), end, index);
  return error == std::errc() && stop == end ? index : -1;
}

}  // namespace

std::string Device::ToString() const {
  return kind == DeviceKind::kCpu ? "cpu" : "cuda:" + std::to_string(index);
}

Device DeviceChoice::Of(int process, int gpu_count) const {
  if (kind == DeviceKind::kCpu) return {};
  if (indices.empty()) return {kind, process % gpu_count};
  return {kind, indices[static_cast<std::size_t>(process) % indices.size()]};
}

Result<DeviceChoice> ParseDevices(const std::string& text, const std::string& key) {
  if (text == "cpu") return DeviceChoice{};
  DeviceChoice choice{DeviceKind::kCuda, {}};
  if (text == "cuda") return choice;
  std::istringstream in(text);
  for (std::string one; std::getline(in, one, ',');) choice.indices.push_back(IndexOf(one));
  bool known = !choice.indices.empty() && !text.ends_with(',');
  for (int index : choice.indices) known &= index >= 0;
  if (known) return choice;
  return InvalidArgument(key + " is '" + text +
                         "'; allowed: cpu, cuda (all GPUs in turn), cuda:N, a list of these "
                         "(cuda:0,cuda:1)");
}

bool UsesGpus(const Config& config) {
  return config.actors.device != "cpu" || config.learner.device != "cpu";
}

}  // namespace thresher
