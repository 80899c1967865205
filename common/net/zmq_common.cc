#include "common/net/zmq_common.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "common/base/check.h"

namespace thresher::net {

WakeEvent::WakeEvent() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  THRESHER_CHECK(fd_ >= 0, "eventfd");
}
WakeEvent::~WakeEvent() { ::close(fd_); }

void WakeEvent::Wake() {
  std::uint64_t one = 1;
  // The only failure is a full counter, and then the event is set already.
  [[maybe_unused]] ssize_t written = ::write(fd_, &one, sizeof one);
}

bool WakeEvent::Drain() {
  std::uint64_t count = 0;
  return ::read(fd_, &count, sizeof count) == sizeof count;
}

bool PollUntil(zmq::pollitem_t* items, std::size_t count,
               std::chrono::steady_clock::time_point deadline) {
  while (true) {
    auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    long timeout_ms = std::max<long>(0, left.count());
    int ready = zmq_poll(items, static_cast<int>(count), timeout_ms);
    THRESHER_CHECK(ready >= 0 || zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
    if (ready > 0) return true;
    if (timeout_ms == 0) return false;
  }
}

void SetCommonOptions(zmq::socket_t& socket, const std::string& endpoint, int high_water_mark,
                      std::size_t max_message_bytes) {
  using namespace zmq::sockopt;
  socket.set(sndhwm, high_water_mark);
  socket.set(rcvhwm, high_water_mark);
  // A backstop against memory exhaustion only: ZeroMQ ends the connection without a word, so the
  // limit that is counted is checked by the receiver.
  socket.set(maxmsgsize, static_cast<std::int64_t>(2 * max_message_bytes));
  socket.set(linger, 0);
  socket.set(handshake_ivl, 5000);
  socket.set(tcp_keepalive, 1);
  socket.set(tcp_keepalive_idle, 30);
  socket.set(tcp_keepalive_intvl, 10);
  socket.set(tcp_keepalive_cnt, 3);
  socket.set(ipv6, endpoint.find('[') != std::string::npos);
}

bool ReceivePart(zmq::socket_t& socket, zmq::message_t& part) {
  while (true) {
    if (zmq_msg_recv(part.handle(), socket.handle(), ZMQ_DONTWAIT) >= 0) return true;
    if (zmq_errno() == EAGAIN) return false;
    THRESHER_CHECK(zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
  }
}

Status CheckMessageSize(std::string_view bytes, std::size_t max_bytes) {
  if (bytes.size() <= max_bytes) return Status::Ok();
  return OutOfRange("a message of " + std::to_string(bytes.size()) + " bytes; allowed: up to " +
                    std::to_string(max_bytes));
}

bool IsTcp(const std::string& endpoint) { return endpoint.starts_with("tcp://"); }
bool IsIpc(const std::string& endpoint) { return endpoint.starts_with("ipc://"); }

}  // namespace thresher::net
