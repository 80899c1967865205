#include "launch/doctor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <thread>

#include "common/backend/backend.h"
#include "common/net/socket.h"
#include "kernels/cpu/dispatch.h"
#include "launch/doctor_gpu.h"
#include "launch/progress.h"
#include "launch/supervisor.h"

namespace thresher::launch {
namespace {

using Level = Finding::Level;

constexpr int kProgramSeconds = 5;
constexpr double kEnoughMemory = 1.0 * (1u << 30);
constexpr double kEnoughDisk = 2.0 * (1u << 30);
constexpr std::time_t kEarliestClock = 1735689600;  // 2025-01-01: before it the clock was never set

Finding Cpu() {
  using kernels::CpuVariant;
  CpuVariant best = kernels::BestCpuVariant();
  Finding f{Level::kGood, "processor", kernels::CpuVariantName(best), ""};
  f.found += std::string(" kernels, set ") + kernels::KernelSetName() + ", " +
             std::to_string(std::thread::hardware_concurrency()) + " cores";
  if (best == CpuVariant::kPortable) {
    f.level = Level::kNote;
    f.remedy = "no AVX2: everything runs, with the same bits, several times slower";
  }
  return f;
}

Finding Memory() {
  struct sysinfo info {};
  sysinfo(&info);
  double total = double(info.totalram) * info.mem_unit;
  double available = double(info.freeram + info.bufferram) * info.mem_unit;
  std::ifstream in("/proc/meminfo");
  for (std::string key, unit; in >> key;) {
    double kib = 0;
    in >> kib;
    std::getline(in, unit);
    if (key == "MemAvailable:") available = kib * 1024;
  }
  Finding f{Level::kGood, "memory", ShortBytes(available) + " available of " + ShortBytes(total),
            ""};
  if (available < kEnoughMemory) {
    f.level = Level::kNote;
    f.remedy = "`thresher check CONFIG` prints what each process needs";
  }
  return f;
}

Finding Disk(const std::filesystem::path& folder) {
  struct statvfs disk {};
  if (statvfs(folder.c_str(), &disk) != 0) {
    return {Level::kMissing, "run folder", folder.string() + " cannot be looked at",
            "start where runs can be kept, or give --dir"};
  }
  double available = double(disk.f_bavail) * disk.f_frsize;
  FileSystemKind kind = FileSystemOf(folder);
  Finding f{Level::kGood, "run folder",
            folder.string() + ": " + ShortBytes(available) + " free on " + kind.name, ""};
  if (access(folder.c_str(), W_OK) != 0) {
    f.level = Level::kMissing;
    f.remedy = "not writable: start elsewhere, or give --dir";
  } else if (kind.shared) {
    f.level = Level::kNote;
    f.remedy =
        "shared file system: syncs are slow and locks may not hold between hosts; keep one "
        "supervisor per run directory, or give --dir on a local disk";
  } else if (available < kEnoughDisk) {
    f.level = Level::kNote;
    f.remedy = "little room: `thresher check CONFIG` prints what a run writes";
  }
  return f;
}

Finding Mpi() {
  std::string line = FirstLineOf({"mpirun", "--version"});
  if (!line.empty()) return {Level::kGood, "MPI", line, ""};
  return {Level::kNote, "MPI", "no mpirun",
          "apt-get install openmpi-bin; only learner.ranks above 1 needs it"};
}

Finding Slurm() {
  std::string line = FirstLineOf({"srun", "--version"});
  return {Level::kGood, "Slurm", line.empty() ? "none (only cluster launches need it)" : line, ""};
}

Finding Loopback() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bool bound = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
               listen(fd, 1) == 0;
  socklen_t size = sizeof address;
  if (bound) getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  if (fd >= 0) close(fd);
  if (bound) {
    return {Level::kGood, "loopback ports",
            "free ones on 127.0.0.1, such as " + std::to_string(ntohs(address.sin_port)), ""};
  }
  return {Level::kMissing, "loopback ports", "none can be bound on 127.0.0.1",
          "bring the loopback interface up: ip link set lo up"};
}

Finding SharedMemory() {
  struct statvfs shm {};
  if (statvfs("/dev/shm", &shm) != 0 || access("/dev/shm", W_OK) != 0) {
    return {Level::kNote, "/dev/shm", "not usable",
            "mount a tmpfs there; MPI ranks fall back to slower transport without it"};
  }
  double available = double(shm.f_bavail) * shm.f_frsize;
  Finding f{Level::kGood, "/dev/shm", ShortBytes(available) + " free", ""};
  if (available < 64.0 * (1u << 20)) {
    f.level = Level::kNote;
    f.remedy = "several MPI ranks want 64 MiB and more (containers: --shm-size)";
  }
  return f;
}

// Where the sockets of a run below `folder` would lie; looks, makes nothing.
Finding SocketPath(const std::filesystem::path& folder) {
  constexpr std::size_t kLongest = 107 - 25;  // sun_path, less the file name's room
  auto run = std::filesystem::absolute(folder) / "runs" / "name-001" / "sockets";
  std::size_t length = run.string().size();
  if (length <= kLongest) {
    return {Level::kGood, "unix socket path",
            std::to_string(length) + " of at most " + std::to_string(kLongest) + " characters", ""};
  }
  return {Level::kNote, "unix socket path",
          std::to_string(length) + " characters, longer than the " + std::to_string(kLongest) +
              " that fit",
          "sockets are put below $XDG_RUNTIME_DIR or /tmp instead; nothing to do"};
}

Finding ClockSanity() {
  std::time_t now = std::time(nullptr);
  char text[64];
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &utc);
  Finding f{Level::kGood, "clock", text, ""};
  if (now < kEarliestClock) {
    f.level = Level::kNote;
    f.remedy = "set the clock (timedatectl); nothing depends on it but the times in records";
  }
  return f;
}

Finding Programs() {
  auto programs = FindPrograms();
  if (programs.ok()) {
    return {Level::kGood, "programs", "actor, broker and learner beside this one", ""};
  }
  return {Level::kMissing, "programs", programs.status().message(),
          "start through launch/thresher, which builds all of them"};
}

// Waits for the child's output and end, at most kProgramSeconds; kills it then.
std::string ReadChild(pid_t pid, int fd) {
  using std::chrono::steady_clock;
  auto deadline = steady_clock::now() + std::chrono::seconds(kProgramSeconds);
  std::string text;
  bool open = true;
  while (open) {
    auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now());
    pollfd ready{fd, POLLIN, 0};
    if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) <= 0) break;
    char buffer[4096];
    ssize_t got = read(fd, buffer, sizeof buffer);
    open = got > 0;
    if (open && text.size() < (1u << 16)) text.append(buffer, static_cast<std::size_t>(got));
  }
  if (open) kill(pid, SIGKILL);
  int status = 0;
  waitpid(pid, &status, 0);
  return !open && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? text : "";
}

}  // namespace

FileSystemKind FileSystemOf(const std::filesystem::path& path) {
  std::error_code error;
  auto existing = std::filesystem::absolute(path, error);
  while (!std::filesystem::exists(existing, error) && existing.has_relative_path()) {
    existing = existing.parent_path();
  }
  struct statfs info {};
  if (statfs(existing.c_str(), &info) != 0) return {"an unknown file system", false};
  // Magic numbers of statfs(2).
  switch (static_cast<std::uint32_t>(info.f_type)) {
    case 0x6969:
      return {"nfs", true};
    case 0x0bd00bd0:
      return {"lustre", true};
    case 0x47504653:
      return {"gpfs", true};
    case 0xff534d42:
    case 0xfe534d42:
      return {"cifs", true};
    case 0x65735546:
      return {"fuse", true};
    case 0x00c36400:
      return {"ceph", true};
    case 0x19830326:
      return {"beegfs", true};
    case 0x01021997:
      return {"9p", true};
    case 0xef53:
      return {"ext4", false};
    case 0x58465342:
      return {"xfs", false};
    case 0x9123683e:
      return {"btrfs", false};
    case 0x01021994:
      return {"tmpfs", false};
    case 0x794c7630:
      return {"overlay", false};
    case 0x2fc12fc1:
      return {"zfs", false};
    default:
      break;
  }
  char hex[32];
  std::snprintf(hex, sizeof hex, "0x%x", static_cast<unsigned>(info.f_type));
  return {hex, false};
}

std::string FirstLineOf(const std::vector<std::string>& command) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return "";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::vector<char*> argv;
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  int failed = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  std::string text = failed == 0 ? ReadChild(pid, pipe_ends[0]) : "";
  close(pipe_ends[0]);
  return text.substr(0, text.find('\n'));
}

std::vector<Finding> Diagnose(const std::filesystem::path& folder) {
  std::vector<Finding> out = {
      Programs(), Cpu(),          Memory(),      Disk(folder), SocketPath(folder),
      Loopback(), SharedMemory(), ClockSanity(), Mpi(),        Slurm()};
  GpuSigns signs;
  signs.smi = FirstLineOf(
      {"nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"});
  std::error_code error;
  signs.driver = std::filesystem::exists("/proc/driver/nvidia/version", error);
  const backend::Gpus gpus = backend::FindGpus();
  const auto found = GpuFindings(gpus, signs, [](int index) {
    return backend::CheckDevice({DeviceKind::kCuda, index});
  });
  out.insert(out.end(), found.begin(), found.end());
  out.push_back(NcclFinding(gpus.list.size()));
  return out;
}

}  // namespace thresher::launch
