#!/bin/sh
# bin/thresher of an installed tree: runs the program beside it, wherever the tree was moved to.
self=$(readlink -f -- "$0") || exit 3
exec "${self%/bin/*}/libexec/thresher/launch/thresher-cli" "$@"
