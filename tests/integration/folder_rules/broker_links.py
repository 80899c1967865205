"""Fails if the broker's executable needs libtorch, MPI or CUDA. Argument: the executable."""

import re
import subprocess
import sys

FORBIDDEN = re.compile(r"lib(torch|c10|mpi|open-rte|cuda|nccl|cublas)", re.IGNORECASE)

listing = subprocess.run(["readelf", "-d", sys.argv[1]], capture_output=True, text=True, check=True)
needed = re.findall(r"\(NEEDED\).*\[(.+)\]", listing.stdout)
wrong = [name for name in needed if FORBIDDEN.match(name)]
if not needed:
    sys.exit(f"{sys.argv[1]}: readelf lists no needed library")
if wrong:
    sys.exit(f"{sys.argv[1]} needs {', '.join(wrong)}")
