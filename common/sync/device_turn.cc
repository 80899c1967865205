#include "common/sync/device_turn.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace thresher {
namespace {

// Bytes of the file that are locked. Of a side: shared by its processes while they have the turn.
// The gate: of who asks, and so is next; nobody else takes a turn meanwhile.
constexpr off_t kGate = 2;
off_t ByteOf(TurnSide side) { return side == TurnSide::kActors ? 0 : 1; }
TurnSide OtherThan(TurnSide side) {
  return side == TurnSide::kActors ? TurnSide::kLearners : TurnSide::kActors;
}

// Locks of the open file, not of the process: threads and tests of one process are told apart.
// Source: fcntl(2), "Open file description locks".
struct flock LockOf(off_t byte, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

bool SetLock(int fd, off_t byte, short type) {
  struct flock lock = LockOf(byte, type);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool LockedByOthers(int fd, off_t byte) {
  struct flock lock = LockOf(byte, F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

Result<std::unique_ptr<DeviceTurn>> DeviceTurn::Open(const std::filesystem::path& file,
                                                     TurnSide side) {
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Unavailable(file.string() + ": " + std::strerror(errno));
  std::unique_ptr<DeviceTurn> turn(new DeviceTurn(file, fd, side));
  // Where there are no such locks, nobody would ever wait.
  if (!SetLock(fd, ByteOf(side), F_RDLCK) || !SetLock(fd, ByteOf(side), F_UNLCK)) {
    return Unavailable(file.string() + ": cannot be locked: " + std::strerror(errno));
  }
  return turn;
}

DeviceTurn::~DeviceTurn() { ::close(fd_); }

bool DeviceTurn::TryTake() {
  if (held_) return true;
  if (!asked_) asked_ = SetLock(fd_, kGate, F_WRLCK);
  if (!asked_ || LockedByOthers(fd_, ByteOf(OtherThan(side_)))) return false;
  held_ = SetLock(fd_, ByteOf(side_), F_RDLCK);
  if (held_) asked_ = !SetLock(fd_, kGate, F_UNLCK);
  return held_;
}

bool DeviceTurn::Wanted() const { return held_ && LockedByOthers(fd_, kGate); }

void DeviceTurn::Give() {
  if (held_) held_ = !SetLock(fd_, ByteOf(side_), F_UNLCK);
  if (asked_) asked_ = !SetLock(fd_, kGate, F_UNLCK);
}

}  // namespace thresher
