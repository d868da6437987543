# Rust's standard libraries for ARM Linux, from Debian's packages of those architectures. Sourced by ./test.
# They are downloaded and unpacked into a sysroot of our own: neither dpkg nor /usr learns of foreign architectures.
# shellcheck shell=bash

# arm_sysroot DIR: leaves DIR/sysroot for rustc's --sysroot. 1 if it cannot: the reason is in $apt_error.
arm_sysroot() {
    local dir=$1 version triple architecture
    apt_error=
    version=$(dpkg-query -W -f '${Version}' "$rust_std_package" 2>/dev/null)
    [ "$(cat "$dir/version" 2>/dev/null)" != "$version" ] || return 0
    say "Downloading $rust_std_package $version for arm64 and armhf (75 MB)"
    say "  why: to build the tests for ARM; unpacked into $dir, not installed"
    rm -rf "$dir"
    mkdir -p "$dir"/{lists/partial,cache/archives/partial,unpacked,sysroot/lib/rustlib}
    cat >"$dir/apt.conf" <<CONF
APT::Architectures { "$(dpkg --print-architecture)"; "arm64"; "armhf"; };
APT::Sandbox::User "";
Dir::State::Lists "$dir/lists";
Dir::Cache "$dir/cache";
CONF
    # An index of a source that has nothing for ARM may be missing: the download shows whether it mattered.
    APT_CONFIG=$dir/apt.conf apt-get update -qq >/dev/null 2>&1 || true
    for triple in arm64:aarch64-unknown-linux-gnu armhf:armv7-unknown-linux-gnueabihf; do
        architecture=${triple%%:*}
        (cd "$dir" && APT_CONFIG=$dir/apt.conf apt-get download -qq "$rust_std_package:$architecture=$version" &&
            dpkg -x "$rust_std_package"_*_"$architecture.deb" unpacked) ||
            { apt_error="apt-get could not download $rust_std_package:$architecture=$version"; return 1; }
        mv "$dir/unpacked/usr/lib/rustlib/${triple#*:}" "$dir/sysroot/lib/rustlib/"
    done
    rm -rf "$dir"/{lists,cache,unpacked,*.deb,apt.conf}
    printf '%s' "$version" >"$dir/version"
}
