#pragma once

#include <chrono>
#include <filesystem>
#include <memory>

#include "common/base/status.h"

namespace thresher {

// Who shares a GPU: each side has its memory in turn, however many processes of it there are.
enum class TurnSide { kActors, kLearners };

// Longer than any batch of leaves or any batch of sequences takes on one GPU.
inline constexpr std::chrono::hours kTurnDeadline{1};

// A process's turns on a device that it shares with the other side. Held by locks on a file, which
// end with the process: who is killed in its turn leaves nothing. Who asks for a turn is next, also
// before the one who has just given it; whoever holds it sees that and gives it when it can.
// Nothing here blocks: a process that waits goes on with its messages and asks again. One owner,
// not thread-safe.
class DeviceTurn {
 public:
  // `file`: the same for all processes that share a device, on one machine; made if it is not
  // there. Error: kUnavailable.
  static Result<std::unique_ptr<DeviceTurn>> Open(const std::filesystem::path& file, TurnSide side);
  ~DeviceTurn();
  DeviceTurn(const DeviceTurn&) = delete;
  DeviceTurn& operator=(const DeviceTurn&) = delete;

  // Takes the turn unless the other side has it, or somebody has asked before; else this process
  // has asked. Returns held().
  bool TryTake();
  bool held() const { return held_; }
  // Whether somebody waits for this turn to be given.
  bool Wanted() const;
  // Ends the turn, with the device's memory given back before, or the wish for it.
  void Give();
  const std::filesystem::path& file() const { return file_; }

 private:
  DeviceTurn(std::filesystem::path file, int fd, TurnSide side)
      : file_(std::move(file)), fd_(fd), side_(side) {}

  const std::filesystem::path file_;
  const int fd_;
  const TurnSide side_;
  bool asked_ = false, held_ = false;
};

}  // namespace thresher
