// raw-zmq: the broker's pattern with nothing but ZeroMQ in it; see README.md.
//   raw-zmq serve ENDPOINT [KEYS]       until it is killed
//   raw-zmq load ENDPOINT ACTORS FRAME_BYTES WINDOW SECONDS [KEYS]
// ROUTER takes frames of DEALERs, acknowledges each with 80 bytes, and hands them on to the DEALER
// that asks for one after the other. KEYS: a folder of the run's keys; tcp is then CURVE.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "common/net/socket.h"
#include "tests/bench/broker/meter.h"

namespace thresher::bench {
namespace {

using Clock = Meter::Clock;

constexpr std::size_t kAckBytes = 80;
constexpr std::size_t kMostQueued = 16;  // frames that nobody has asked for yet
constexpr int kHighWaterMark = 4096, kReceiveHighWaterMark = 16;  // as the broker's

int Serve(const std::string& endpoint, const std::string& keys) {
  zmq::context_t context;
  zmq::socket_t router(context, zmq::socket_type::router);
  router.set(zmq::sockopt::sndhwm, kHighWaterMark);
  router.set(zmq::sockopt::rcvhwm, kReceiveHighWaterMark);
  if (!keys.empty()) {
    router.set(zmq::sockopt::curve_server, true);
    router.set(zmq::sockopt::curve_secretkey,
               net::LoadOrCreateKeys(keys).value().broker.secret_key);
  }
  router.bind(endpoint);
  std::printf("%s\n", router.get(zmq::sockopt::last_endpoint).c_str());
  std::fflush(stdout);
  std::deque<zmq::message_t> queue;
  std::deque<std::string> asked;
  const std::string ack(kAckBytes, 'a');
  while (true) {
    zmq::message_t from, body;
    if (!router.recv(from) || !router.recv(body)) return 1;
    if (body.size() <= kAckBytes) {
      asked.push_back(from.to_string());
    } else {
      router.send(from, zmq::send_flags::sndmore);
      router.send(zmq::buffer(ack), zmq::send_flags::none);
      queue.push_back(std::move(body));
      if (queue.size() > kMostQueued) queue.pop_front();  // nobody reads: it is only a bench
    }
    while (!asked.empty() && !queue.empty()) {
      router.send(zmq::buffer(asked.front()), zmq::send_flags::sndmore);
      router.send(queue.front(), zmq::send_flags::none);
      asked.pop_front();
      queue.pop_front();
    }
  }
}

int Load(const std::string& endpoint, const std::vector<std::string>& words) {
  const std::size_t count = std::stoul(words.at(0)), bytes = std::stoul(words.at(1));
  const std::size_t window = std::stoul(words.at(2));
  const double seconds = std::stod(words.at(3));
  const std::string keys = words.size() > 4 ? words[4] : "";
  zmq::context_t context;
  auto dial = [&] {
    zmq::socket_t socket(context, zmq::socket_type::dealer);
    socket.set(zmq::sockopt::sndhwm, kHighWaterMark);
    socket.set(zmq::sockopt::linger, 0);
    if (!keys.empty()) {
      const net::KeyRing ring = net::LoadOrCreateKeys(keys).value();
      socket.set(zmq::sockopt::curve_serverkey, ring.broker.public_key);
      socket.set(zmq::sockopt::curve_publickey, ring.actor.public_key);
      socket.set(zmq::sockopt::curve_secretkey, ring.actor.secret_key);
    }
    socket.connect(endpoint);
    return socket;
  };
  std::atomic<std::uint64_t> learned{0};
  std::jthread learner([&](const std::stop_token& stop) {
    zmq::socket_t socket = dial();
    socket.set(zmq::sockopt::rcvtimeo, 100);
    for (int i = 0; i < 4; ++i) socket.send(zmq::str_buffer("next"), zmq::send_flags::none);
    zmq::message_t frame;
    while (!stop.stop_requested()) {
      if (!socket.recv(frame)) continue;
      ++learned;
      socket.send(zmq::str_buffer("next"), zmq::send_flags::none);
    }
  });
  const std::string frame(bytes, 'x');
  std::vector<zmq::socket_t> sockets;
  std::vector<std::deque<Clock::time_point>> sent(count);
  std::vector<zmq::pollitem_t> items;
  for (std::size_t i = 0; i < count; ++i) {
    sockets.push_back(dial());
    items.push_back({sockets.back().handle(), 0, ZMQ_POLLIN, 0});
  }
  auto send = [&](std::size_t i) {
    // A copy, as the peers of the broker make frames anew.
    sockets[i].send(zmq::buffer(frame), zmq::send_flags::none);
    sent[i].push_back(Clock::now());
  };
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t w = 0; w < window; ++w) send(i);
  }
  Meter meter(seconds, learned);
  while (meter.GoesOn()) {
    zmq::poll(items, std::chrono::milliseconds(10));
    for (std::size_t i = 0; i < count; ++i) {
      if ((items[i].revents & ZMQ_POLLIN) == 0) continue;
      zmq::message_t ack;
      while (sockets[i].recv(ack, zmq::recv_flags::dontwait)) {
        meter.Answered(sent[i].front(), 1);
        sent[i].pop_front();
        send(i);
      }
    }
  }
  meter.Print("frames");
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string what = argv[1];
  if (what == "serve") return thresher::bench::Serve(argv[2], argc > 3 ? argv[3] : "");
  if (what == "load") return thresher::bench::Load(argv[2], {argv + 3, argv + argc});
  return 2;
}
