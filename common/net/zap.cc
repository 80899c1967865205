#include "common/net/zap.h"

#include <vector>

#include "common/base/check.h"

namespace thresher::net {
namespace {

std::string DecodeKey(const std::string& z85) {
  std::string raw(32, '\0');
  THRESHER_CHECK(
      z85.size() == 40 && zmq_z85_decode(reinterpret_cast<std::uint8_t*>(raw.data()), z85.c_str()),
      "a public key is not Z85");
  return raw;
}

}  // namespace

ZapHandler::ZapHandler(zmq::context_t& context, const KeyRing* keys)
    : socket_(context, zmq::socket_type::rep) {
  if (keys != nullptr) {
    user_by_key_[DecodeKey(keys->actor.public_key)] = "actor";
    user_by_key_[DecodeKey(keys->learner.public_key)] = "learner";
    user_by_key_[DecodeKey(keys->tool.public_key)] = "tool";
  }
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
  // Without a fatal handler: an exception is a failed check.
  thread_ = NamedThread("zap", [this](std::stop_token) { Loop(); });
}

ZapHandler::~ZapHandler() {
  stop_.Wake();
  thread_.Join();
}

void ZapHandler::Loop() {
  zmq::pollitem_t items[] = {{socket_.handle(), 0, ZMQ_POLLIN, 0},
                             {nullptr, stop_.fd(), ZMQ_POLLIN, 0}};
  while (true) {
    PollUntil(items, 2, std::chrono::steady_clock::now() + std::chrono::seconds(1));
    if (items[1].revents & ZMQ_POLLIN) return;
    if (items[0].revents & ZMQ_POLLIN) Answer();
  }
}

void ZapHandler::Answer() {
  std::vector<std::string> parts;
  zmq::message_t part;
  do {
    THRESHER_CHECK(ReceivePart(socket_, part), "an authentication request was cut");
    parts.push_back(part.to_string());
  } while (part.more());
  // version, request id, domain, address, routing id, mechanism, credentials
  THRESHER_CHECK(parts.size() >= 6 && parts[0] == "1.0",
                 "authentication request of another version");
  std::string user = UserFor(parts[2], parts[5], parts.size() > 6 ? parts[6] : "");
  const std::string reply[] = {
      "1.0", parts[1], user.empty() ? "400" : "200", user.empty() ? "refused" : "ok", user, ""};
  for (std::size_t i = 0; i < 6; ++i) {
    socket_.send(zmq::buffer(reply[i]), i < 5 ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
}

std::string ZapHandler::UserFor(const std::string& domain, const std::string& mechanism,
                                const std::string& credentials) const {
  if (domain == kLocalDomain && mechanism == "NULL") return "local";
  if (domain != kKeyedDomain || mechanism != "CURVE") return "";
  auto found = user_by_key_.find(credentials);
  return found == user_by_key_.end() ? "" : found->second;
}

}  // namespace thresher::net
