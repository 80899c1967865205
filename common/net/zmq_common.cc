#include "common/net/zmq_common.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>

#include "common/base/check.h"

namespace thresher::net {
namespace {

// ZeroMQ reads into buffers of this size, and messages that fit share one.
constexpr std::size_t kReadBufferBytes = 8192;
// Below it a copy costs less than the hand-over of an owner.
constexpr std::size_t kSendInPlaceBytes = 4096;

void ReleaseBytes(void*, void* bytes) { delete static_cast<SharedBytes*>(bytes); }

}  // namespace

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
  // Where something is on its way nothing else tells that a node is gone, or reads no more (ms).
  socket.set(tcp_maxrt, 60000);
  socket.set(ipv6, endpoint.find('[') != std::string::npos);
}

bool ReceivePart(zmq::socket_t& socket, zmq::message_t& part) {
  while (true) {
    if (zmq_msg_recv(part.handle(), socket.handle(), ZMQ_DONTWAIT) >= 0) return true;
    if (zmq_errno() == EAGAIN) return false;
    THRESHER_CHECK(zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
  }
}

SharedBytes Share(zmq::message_t&& message) {
  auto owner = std::make_shared<zmq::message_t>(std::move(message));
  const std::string_view view(static_cast<const char*>(owner->data()), owner->size());
  return {std::move(owner), view, std::max(view.size(), kReadBufferBytes)};
}

bool SendPart(zmq::socket_t& socket, SharedBytes bytes) {
  if (bytes.size() < kSendInPlaceBytes) {
    return zmq_send(socket.handle(), bytes.data(), bytes.size(), ZMQ_DONTWAIT) >= 0;
  }
  auto owner = std::make_unique<SharedBytes>(std::move(bytes));
  zmq_msg_t message;
  const std::string_view view = *owner;
  // ZeroMQ does not write into what it sends.
  int made = zmq_msg_init_data(&message, const_cast<char*>(view.data()), view.size(), ReleaseBytes,
                               owner.get());
  THRESHER_CHECK(made == 0, "zmq_msg_init_data: out of memory");
  owner.release();
  if (zmq_msg_send(&message, socket.handle(), ZMQ_DONTWAIT) >= 0) return true;
  const int error = zmq_errno();
  zmq_msg_close(&message);
  errno = error;
  return false;
}

Status CheckMessageSize(std::string_view bytes, std::size_t max_bytes) {
  if (bytes.size() <= max_bytes) return Status::Ok();
  return OutOfRange("a message of " + std::to_string(bytes.size()) + " bytes; allowed: up to " +
                    std::to_string(max_bytes));
}

bool IsTcp(const std::string& endpoint) { return endpoint.starts_with("tcp://"); }
bool IsIpc(const std::string& endpoint) { return endpoint.starts_with("ipc://"); }

}  // namespace thresher::net
