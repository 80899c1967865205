#include <nlohmann/json.hpp>

#include "common/data/files.h"
#include "common/net/socket.h"

namespace thresher::net {
namespace {

std::filesystem::path FileOf(const std::filesystem::path& run) { return run / "rendezvous.json"; }

}  // namespace

Status WriteRendezvous(const std::filesystem::path& run, const Rendezvous& rendezvous) {
  nlohmann::ordered_json json;
  json["endpoints"] = rendezvous.endpoints;
  json["http"] = rendezvous.http;
  json["broker_public_key"] = rendezvous.broker_public_key;
  json["epoch"] = rendezvous.epoch;
  json["pid"] = rendezvous.pid;
  std::string text = json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return WriteFileAtomic(FileOf(run), text, 0644);
}

Result<Rendezvous> ReadRendezvous(const std::filesystem::path& run) try {
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(FileOf(run)));
  nlohmann::json json = nlohmann::json::parse(text);
  Rendezvous rendezvous;
  json.at("endpoints").get_to(rendezvous.endpoints);
  json.at("http").get_to(rendezvous.http);
  json.at("broker_public_key").get_to(rendezvous.broker_public_key);
  json.at("epoch").get_to(rendezvous.epoch);
  json.at("pid").get_to(rendezvous.pid);
  return rendezvous;
} catch (const nlohmann::json::exception& error) {
  return DataLoss(FileOf(run).string() + ": " + error.what());
}

}  // namespace thresher::net
