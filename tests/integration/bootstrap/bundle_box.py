"""Small bundles and packages for the tests of launch/bundle; no network, no real package."""

import hashlib
import pathlib
import platform
import shutil
import subprocess
import tarfile

from sandbox import ROOT, Sandbox

# Serves the packages of $FAKE_STATE/pool, which holds NAME_VERSION_ARCH.deb; the order is the order of
# their names. "no-network" in $FAKE_STATE: nothing is found.
FAKE_POOL_APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$FAKE_STATE/calls"
[ -e "$FAKE_STATE/no-network" ] && echo "E: Failed to fetch the lists" >&2 && exit 100
case " $* " in
  *" --print-uris "*)
    for file in "$FAKE_STATE"/pool/*.deb; do
      echo "'file:$file' ${file##*/} $(stat -c %s "$file") SHA256:0"
    done ;;
  *" download "*)
    for name in "$@"; do
      case $name in *::*) ;; *=*) cp "$FAKE_STATE/pool/${name%%=*}"_*.deb . || exit 100 ;; esac
    done ;;
esac
exit 0
"""

TABLE = """# test table
left  alpha         not needed
dev   beta          MIT
lib   libone        LGPL-2.1-only
tool  capnproto     MIT
link  one           shared
link  two           archive
"""


def compile_library(folder, name, text, *needs):
    """lib<name>.so with that soname, linked with libraries of the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.c"
    source.write_text(text)
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,lib{name}.so.1", source, "-o",
                    folder / f"lib{name}.so.1", *(folder / f"lib{need}.so.1" for need in needs)], check=True)
    source.unlink()
    return folder / f"lib{name}.so.1"


def write_sums(bundle):
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(bundle)}\n"
             for p in sorted(bundle.rglob("*")) if p.is_file() and p.name != "SHA256SUMS"]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def make_bundle(folder, **manifest):
    """A whole bundle with a header and two libraries, of which lib/libuser.so.1 needs the other."""
    values = {"format": "1", "architecture": platform.machine(), "system": "Test 1", "glibc": "2.17"}
    folder.mkdir(parents=True)
    (folder / "MANIFEST").write_text("".join(f"{k} {v}\n" for k, v in (values | manifest).items()))
    (folder / "include").mkdir()
    (folder / "include/a header.h").write_text("#pragma once\n")
    compile_library(folder / "lib", "used", "int used(void) { return 1; }\n")
    compile_library(folder / "lib", "user", "int used(void);\nint user(void) { return used(); }\n", "used")
    write_sums(folder)
    return folder


def pack(bundle, archive):
    with tarfile.open(archive, "w:gz") as out:
        out.add(bundle, "bundle")
    return archive


class BundleBox(Sandbox):
    """The sandbox of the bootstrap with launch/bundle and a pool of three packages."""

    def __init__(self):
        super().__init__()
        shutil.copy(ROOT / "launch/bundle", self.root / "launch/bundle")
        (self.root / "launch/bundle.txt").write_text(TABLE)
        (self.root / "launch/packages.txt").write_text("alpha  first\nbeta  second\ncapnproto  third\n")
        self.install("capnproto")

    def bundle(self, *arguments, **env):
        """launch/bundle with the arguments. Returns (exit status, stdout, stderr)."""
        result = subprocess.run([self.root / "launch/bundle", *map(str, arguments)], env={**self.env, **env},
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        return result.returncode, result.stdout, result.stderr

    def package(self, name, files, version="1-1"):
        """A package with the files {path: path of the contents, or text}."""
        tree = self.folder / "tree" / name
        files = {f"usr/share/doc/{name}/copyright": f"licence of {name}\n"} | files
        for path, content in files.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pathlib.Path):
                shutil.copy(content, target)
            else:
                target.write_text(content)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
                                             "Maintainer: test <test@example.org>\nDescription: test\n")
        subprocess.run(["dpkg-deb", "-b", tree, self.state / "pool" / f"{name}_{version}_amd64.deb"], check=True,
                       capture_output=True)
        return tree

    def make_pool(self):
        """libc6, and what TABLE names: beta links libone (which needs libdeep) and archives libtwo."""
        self.fake("apt-get", FAKE_POOL_APT_GET)
        (self.state / "pool").mkdir()
        made = self.folder / "made"
        deep = compile_library(made, "deep", "int deep(void) { return 3; }\n")
        one = compile_library(made, "one", "int deep(void);\nint one(void) { return deep(); }\n", "deep")
        (made / "two.c").write_text("int two(void) { return 2; }\n")
        subprocess.run(["gcc", "-c", "-fPIC", made / "two.c", "-o", made / "two.o"], check=True)
        subprocess.run(["ar", "rc", made / "libtwo.a", made / "two.o"], check=True)
        library = "usr/lib/x86_64-linux-gnu"
        self.package("libc6", {}, version="2.17-1")
        self.package("libone", {f"{library}/libone.so.1": one, f"{library}/libdeep.so.1": deep})
        self.package("beta", {
            "usr/include/beta.h": "#pragma once\n", "usr/include/x86_64-linux-gnu/beta/config.h": "\n",
            f"{library}/libone.so": one, f"{library}/libtwo.a": made / "libtwo.a",
            f"{library}/cmake/CapnProto/CapnProtoMacros.cmake": "\n",
            f"{library}/pkgconfig/cpp-httplib.pc": "Cflags: -I${includedir} -DONE -DTWO=2\n",
            f"{library}/pkgconfig/spdlog.pc": "CFlags: -I${includedir}\n"})
        self.package("capnproto", {"usr/bin/capnp": pathlib.Path("/usr/bin/true"),
                                   "usr/bin/capnpc-c++": pathlib.Path("/usr/bin/true")})
