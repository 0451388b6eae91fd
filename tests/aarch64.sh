#!/usr/bin/env bash
# Run the crate's own tests on an emulated aarch64, so that NEON is not only compiled but computes.
#
# A cross toolchain needs a standard library, a linker and a C library for the target, and an emulator.
# Debian packages all four, at versions that fit each other, so the tests run inside a small Debian of
# their own under target/aarch64-root. Nothing outside `target` changes, but for debootstrap itself.
# Making it takes three to five minutes and 2 GB, the tests as long again; later runs reuse it and rebuild
# what changed.
#
# Not its business: what the tests check, and the Python boundary, which is left out of the build.
set -euo pipefail
cd "$(dirname "$0")/.."

# The first release with rustc as new as Cargo.toml asks for. It was "testing" when this was written.
readonly suite=forky
readonly root=$PWD/target/aarch64-root
readonly vendor=$PWD/target/vendor
readonly ready=$root/ready

# Private mounts need more than the user id 0: an unprivileged container does not have them.
if [[ $(id -u) != 0 ]] || ! grep -qx ID=debian /etc/os-release || ! unshare --mount true 2>/dev/null; then
    echo "test-aarch64: skipped: needs root on Debian (debootstrap)"
    exit 0
fi

# Run a command inside the root, seeing nothing of the outer environment. The mounts belong to this one
# command: none is left for a later `rm -rf target` to walk into, however the command ends.
inside() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount bash -euc '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --bind "$PWD" "$root/softxent"
        mount -o remount,bind,ro "$root/softxent"
        exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive CARGO_TARGET_DIR=/build CARGO_TERM_COLOR=never "$@"
    ' bash "$root" "$@"
}

make_root() {
    rm -rf --one-file-system "$root" # what an interrupted run has left
    apt-get -qq update
    command -v debootstrap >/dev/null || apt-get -qq install --no-install-recommends debootstrap
    local mirror
    # shellcheck disable=SC2016 # apt-get fills in the field
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
    # The script `sid` serves every later release; a debootstrap older than the suite has none of its name.
    unshare --mount debootstrap --variant=minbase "$suite" "$root" "$mirror" \
        /usr/share/debootstrap/scripts/sid

    # How apt fetches here (proxy, certificates, age of the index) also holds inside.
    {
        apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets'
        echo 'Dpkg::Use-Pty "false";'
    } >"$root/etc/apt/apt.conf.d/99outer"
    mkdir -p "$root/etc/ssl/certs" "$root/root/.cargo" "$root/softxent"
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true

    cat >"$root/root/.cargo/config.toml" <<'TOML'
[source.crates-io]
replace-with = "vendor"

[source.vendor]
directory = "/softxent/target/vendor"

[target.aarch64-unknown-linux-gnu]
linker = "aarch64-linux-gnu-gcc"
# The first 64-bit one: what needs more than the baseline dies here.
runner = "qemu-aarch64 -cpu cortex-a53 -L /usr/aarch64-linux-gnu"
TOML

    # A root that a crash leaves half written is made anew: dpkg need not wait for the disk.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
    inside dpkg --add-architecture arm64
    inside apt-get -qq update
    inside apt-get -qq install --no-install-recommends \
        rustc cargo libstd-rust-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    inside apt-get clean
    touch "$ready"
}

if [[ ! -e $ready ]]; then
    echo "test-aarch64: making a Debian with a cross toolchain; log in $root.log"
    mkdir -p target
    make_root >"$root.log"
fi

# The outer cargo fetches, the inner one never does.
if ! cmp --quiet Cargo.lock "$vendor.lock"; then
    cargo vendor --quiet --locked "$vendor" >/dev/null
    cp Cargo.lock "$vendor.lock"
fi

inside sh -euc '
    cd /softxent
    cargo test --quiet --offline --locked --no-default-features --target aarch64-unknown-linux-gnu
'
