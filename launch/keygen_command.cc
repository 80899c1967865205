#include <iostream>
#include <nlohmann/json.hpp>

#include "common/net/socket.h"
#include "launch/commands.h"

namespace thresher::launch {

int KeygenCommand(const KeygenOptions& options) {
  const std::vector<std::string> all = {"broker", "actor", "learner", "tool"};
  const std::vector<std::string>& roles = options.roles.empty() ? all : options.roles;
  auto made = net::MakeKeys(options.folder, roles, options.force);
  if (!made.ok() && made.status().code() == StatusCode::kAlreadyExists) {
    return Report(made.status().WithContext("nothing was made; --force replaces keys"), kExitUsage);
  }
  if (!made.ok()) return Report(made.status(), kExitFailure);
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < roles.size(); ++i) json[roles[i]] = made->at(i);
  std::cout << json.dump(2) << "\n";
  if (options.force) std::cerr << "processes that run use the keys that they were started with\n";
  return kExitOk;
}

}  // namespace thresher::launch
