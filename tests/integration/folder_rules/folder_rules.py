"""Checks the rules between folders. Prints one line per violation; exit 1 if there is any.

Argument: the root of the tree. Only files that git tracks, or would, are looked at.
"""

import pathlib
import re
import shutil
import subprocess
import sys

TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "actor", "broker",
             "common", "configs", "docs", "kernels", "launch", "learner", "tests"}
CODE_FOLDERS = ("actor", "broker", "common", "kernels", "launch", "learner")
SOURCE_SUFFIXES = {".h", ".cc", ".cuh", ".cu", ".capnp"}

# folder -> folders whose headers it may include; tests may include all.
MAY_INCLUDE = {
    "kernels": {"kernels"},
    "common": {"common", "kernels"},
    "actor": {"actor", "common", "kernels"},
    "broker": {"broker", "common", "kernels"},
    "learner": {"learner", "common", "kernels"},
    "launch": {"launch", "actor", "broker", "learner", "common", "kernels"},
    "tests": {"tests", "launch", "actor", "broker", "learner", "common", "kernels"},
}

# header prefix -> files that may include it, as prefixes of their path. tests/parity compares with
# libtorch; JSON is wide on purpose: it is how people and other programs read what a run leaves.
THIRD_PARTY = {
    "zmq": ["common/net/", "tests/unit/net/", "tests/bench/broker/"],
    "capnp/": ["common/wire/"],
    "kj/": ["common/wire/"],
    "yaml-cpp/": ["common/config/"],
    "spdlog/": ["common/log/"],
    "unicode/": ["common/model/tokenizer/"],
    "xxhash.h": ["common/base/"],
    "Random123/": ["common/base/"],
    "zstd.h": ["common/data/"],
    "mpi.h": ["common/comm/"],
    "nccl.h": ["common/comm/", "tests/unit/comm/"],
    "httplib.h": ["common/net/"],
    "CLI/": ["launch/", "actor/main.cc", "broker/main.cc", "learner/main.cc", "tests/bench/",
             "tests/fault/sim/main.cc"],
    "nlohmann/": ["common/comm/", "common/data/", "common/examples/", "common/model/", "common/net/", "launch/", "broker/", "learner/", "tests/"],
    "torch/": ["learner/", "tests/parity/", "tests/bench/"],
    "ATen/": ["learner/", "tests/parity/"],
    "c10/": ["learner/", "tests/parity/"],
    "cuda": ["kernels/cuda/", "common/gpu/", "common/model/cuda/", "tests/"],
    "gtest/": ["tests/"],
    "gmock/": ["tests/"],
}
# POSIX, Linux and compiler headers; standard C++ headers are those without a dot.
SYSTEM_HEADER = re.compile(
    r"^((sys|net|netinet|arpa|linux|sanitizer)/\w+|unistd|malloc|fcntl|poll|pthread|signal|sched|dirent|errno|dlfcn"
    r"|spawn|pwd|netdb|termios|fenv|immintrin|x86intrin|xmmintrin|cpuid|ifaddrs|stdlib|string"
    r"|time|ucontext|execinfo|cxxabi)\.h$")

# What a simulation of the farm puts in the machine's place (clock, entropy, process, files, tasks), in the
# folders whose loops it runs: pattern -> (where to go instead, files that may all the same).
SIMULATED = ("actor/", "broker/", "common/base/", "common/comm/", "common/config/", "common/data/", "common/examples/",
             "common/model/", "common/net/", "common/sync/", "common/wire/", "learner/")
SEAMS = {
    r"\b\w+_clock::now|::clock_gettime|std::time\(|\bgettimeofday":
        ("SystemClock of common/base/clock.h",
         ["common/base/clock.cc", "common/sync/worker_pool.cc", "common/net/client.cc", "common/net/server.cc",
          "common/net/zap.cc", "common/net/zmq_common.cc", "common/net/http_client.cc"]),
    r"std::random_device|\bgetrandom\(|/dev/u?random":
        ("common/base/entropy.h", ["common/base/entropy.cc"]),
    r"\bgetpid\(|\bgethostname\(":
        ("common/base/process.h", ["common/base/process.cc"]),
    r"<fstream>|\bfopen\(|directory_iterator|std::(?:rename|remove)\([^,]*c_str"
    r"|::(?:open|openat|rename|renameat2|unlink|link|mkdir|mkostemp|stat|lstat|fstat|fsync|fdatasync|flock|ftruncate"
    r"|mmap|pwrite|pread)\("
    r"|(?:filesystem|\bfs)::(?:exists|is_\w+|remove\w*|rename|create_\w+|copy\w*|file_size|status|symlink_status"
    r"|last_write_time|resize_file|permissions|space|canonical|weakly_canonical|current_path|temp_directory_path)\(":
        ("common/data/file_system.h",
         ["common/data/machine_files.cc", "common/net/socket_folder.cc", "common/comm/nccl_library.cc",
          "common/sync/device_turn.cc"]),
    r"std::this_thread::sleep|std::j?thread\b|std::condition_variable|std::async\b":
        ("common/sync/task.h and condition.h",
         ["common/sync/", "common/net/http_server.cc", "common/comm/poll.cc", "common/comm/nccl"]),
    r"\bNamedThread\b":  # it goes on where time is simulated
        ("common/sync/task.h", ["common/sync/", "common/log/", "common/net/", "common/comm/", "launch/farm"]),
}

IGNORED_FOLDERS = ("build", "bundle", "runs")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
# Absolute paths of somebody's machine: a temporary or system folder is not one.
MACHINE_PATH = re.compile(r"(?<![\w.])/" + r"(?:work|root|home/\w+|Users/\w+)/")


def tracked_files(root):
    """Paths below `root`, relative: what git tracks or would; where there is no git, all files but those of
    the folders that it ignores."""
    if (root / ".git").exists() and shutil.which("git"):
        listing = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"], capture_output=True, text=True, check=True)
        names = [n for n in listing.stdout.split("\0") if n]
    else:
        names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()
                 and p.relative_to(root).parts[0] not in IGNORED_FOLDERS
                 and not {".git", "__pycache__"}.intersection(p.relative_to(root).parts)]
    return sorted(pathlib.PurePosixPath(n) for n in set(names) if (root / n).is_file())


def check_include(path, quoted, header):
    """The violation of one include, or None."""
    folder = path.parts[0]
    first = header.split("/")[0]
    if first in MAY_INCLUDE:
        if folder in MAY_INCLUDE and first not in MAY_INCLUDE[folder]:
            return f"{folder} may not include {first} (\"{header}\")"
        return None if quoted else f"header of the project in angle brackets: <{header}>"
    for prefix, places in THIRD_PARTY.items():
        if header.startswith(prefix):
            if any(str(path).startswith(place) for place in places):
                return None
            return f"<{header}> may be included only in {', '.join(places)}"
    if quoted:
        return f"\"{header}\" is not named from the root of the project"
    if "." in header and not SYSTEM_HEADER.match(header):
        return f"<{header}> belongs to no library in the table of folder_rules.py"
    return None


def check_sources(root, files):
    for path in files:
        if path.suffix not in SOURCE_SUFFIXES or path.parts[:2] == ("tests", "fixtures"):
            continue
        for bracket, header in INCLUDE.findall((root / path).read_text(errors="replace")):
            problem = check_include(path, bracket == '"', header)
            if problem:
                yield f"{path}: {problem}"


def check_seams(root, files):
    for path in files:
        if path.suffix not in SOURCE_SUFFIXES or not str(path).startswith(SIMULATED):
            continue
        lines = (root / path).read_text(errors="replace").splitlines()
        for pattern, (instead, places) in SEAMS.items():
            if str(path).startswith(tuple(places)):
                continue
            for number, line in enumerate(lines, 1):
                if re.search(pattern, line.split("//")[0]):
                    yield f"{path}:{number}: goes past {instead}: {line.strip()[:80]}"


def check_top_level(files):
    for name in sorted({path.parts[0] for path in files}):
        if name not in TOP_LEVEL and not name.startswith("."):
            yield f"{name}: not one of the entries of the top level"


def check_readmes(files):
    """Every folder of the first level has a README.md, and those of the second that hold sources."""
    readmes = {path.parent for path in files if path.name == "README.md"}
    folders = {pathlib.PurePosixPath(path.parts[0]) for path in files
               if len(path.parts) > 1 and path.parts[0] in TOP_LEVEL}
    folders |= {pathlib.PurePosixPath(*path.parts[:2]) for path in files
                if len(path.parts) > 2 and path.parts[0] in CODE_FOLDERS
                and path.suffix in SOURCE_SUFFIXES}
    for folder in sorted(folders - readmes):
        yield f"{folder}: no README.md"


def check_machine_paths(root, files):
    for path in files:
        if path.parts[:3] == ("tests", "integration", "folder_rules"):
            continue
        text = (root / path).read_text(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                yield f"{path}:{number}: path of a machine: {line.strip()[:80]}"


def check_tree(root):
    """All violations of the tree, in order; an empty tree is one."""
    root = pathlib.Path(root)
    files = tracked_files(root)
    if not any(path.suffix == ".cc" for path in files):
        return [f"{root}: no sources found"]
    return [*check_top_level(files), *check_readmes(files), *check_sources(root, files),
            *check_seams(root, files), *check_machine_paths(root, files)]


if __name__ == "__main__":
    violations = check_tree(sys.argv[1])
    print("\n".join(violations) or "no rule is broken")
    sys.exit(1 if violations else 0)
