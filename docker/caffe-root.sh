#!/bin/sh
# Make a Debian 11 root that holds real Caffe, for machines without a container engine: the same packages as in
# caffe.Dockerfile. Does nothing where DIR already holds it. About a minute and 770 MB.
#
#   sh docker/caffe-root.sh DIR
#   CAFFE_ROOT=DIR pytest tests/conformance
set -eu

packages="caffe python3-caffe python3-lmdb libopenblas0-pthread"

fail() { echo "caffe-root.sh: $*" >&2; exit 1; }
works() { chroot "$1" python3 -c 'import caffe, lmdb' >/dev/null 2>&1 && chroot "$1" caffe --version >/dev/null 2>&1; }

[ $# -eq 1 ] || fail "usage: caffe-root.sh DIR"
root=$1
[ "$(id -u)" -eq 0 ] || fail "making and entering a root takes root; run it with sudo, or build docker/caffe.Dockerfile"

if works "$root"; then
    echo "caffe-root.sh: $root already holds Caffe"
    exit 0
fi
if [ -e "$root" ] && [ -n "$(ls -A "$root" 2>/dev/null)" ]; then
    fail "$root is not empty and holds no working Caffe; remove it or name another folder"
fi
if ! command -v mmdebstrap >/dev/null; then
    command -v apt-get >/dev/null || fail "mmdebstrap is missing and this system has no apt-get; install mmdebstrap"
    echo "caffe-root.sh: installing mmdebstrap" >&2
    { apt-get update && apt-get install -y --no-install-recommends mmdebstrap; } >&2 || fail "mmdebstrap cannot be installed"
fi

# Beside the target and renamed at the end, so that an interrupted run leaves no half-made root.
mkdir -p "$(dirname "$root")"
making=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf --one-file-system "$making"' EXIT
mmdebstrap --quiet --variant=minbase --include="$(echo $packages | tr ' ' ,)" bullseye "$making" \
    || fail "mmdebstrap failed; is a Debian mirror with bullseye reachable?"
works "$making" || fail "Caffe was installed and does not start"
chmod 755 "$making"
rm -rf "$root"
mv "$making" "$root"
trap - EXIT
echo "caffe-root.sh: Caffe is ready in $root"
