# Sees to what a machine lacks. Sourced by ./run and ./test, never run by itself.
# Every function that installs says first what and why; nothing here removes or replaces what a person installed,
# except where Debian's own packages exclude each other, and then it says so.
# shellcheck shell=bash

# Debian stable's compiler: the oldest that edgelog builds with (`rust-version` in Cargo.toml).
RUST_MIN_MAJOR=1
RUST_MIN_MINOR=85
# Debian 12 has it in addition to its own, older one, under names that end in -web, and a newer one since: hence the
# pin. Debian 13 has no other.
DEBIAN_12_RUST=1.85.0+dfsg3-1~deb12u3

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    shift
    local line
    for line in "$@"; do say "       $line"; done
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# May ask for a password on a terminal; never where no person could type it.
can_be_root() {
    is_root && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null || { [ -t 0 ] && [ -t 2 ]; }
}

as_root() { if is_root; then "$@"; else sudo "$@"; fi; }

# "12", "13", or "" where this is no Debian. Raspberry Pi OS (64-bit) calls itself Debian and has its packages.
debian_release() {
    (
        [ -r /etc/os-release ] || exit 0
        # shellcheck source=/dev/null
        . /etc/os-release
        if [ "${ID:-}" = debian ]; then printf '%s' "${VERSION_ID:-}"; fi
    )
}

# --- apt -------------------------------------------------------------------------------------------------------------

# Is `NAME` or `NAME=VERSION` installed?
package_installed() {
    local found
    # shellcheck disable=SC2016 # the ${...} are dpkg-query's
    found=$(dpkg-query -W -f '${db:Status-Abbrev}${Version}' "${1%%=*}" 2>/dev/null) || return 1
    [[ $found == 'ii '* ]] && [[ $1 != *=* || $found == "ii ${1#*=}" ]]
}

# Two stages of ./test may install at once; dpkg refuses the second one, so it waits here.
apt_alone() { as_root flock /run/lock/edgelog-apt.lock env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }

apt_updated=
apt_update() {
    [ -z "$apt_updated" ] || return 0
    apt_updated=yes
    # A source that does not answer need not be the one that is needed: the install will show.
    apt_alone update -qq >/dev/null 2>&1 || say "  (apt-get update did not reach every source; going on)"
}

# apt_install WHY PACKAGE...   Installs what is missing. 1 if it cannot: the reason is in $apt_error.
apt_install() {
    local why=$1 missing=() package log
    shift
    apt_error=
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        apt_error="no apt-get here to install ${missing[*]} with"
        return 1
    fi
    if ! can_be_root; then
        apt_error="not root, and no sudo, to install ${missing[*]} with"
        return 1
    fi
    say "Installing Debian packages: ${missing[*]}"
    say "  why: $why"
    apt_update
    log=$(mktemp)
    if ! apt_alone install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        apt_error="apt-get could not install ${missing[*]}"
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# --- Rust ------------------------------------------------------------------------------------------------------------

# The version that a rustc or cargo prints, or nothing. A rustup proxy without a toolchain prints none.
rust_version() { "$1" --version 2>/dev/null | sed -nE '1s/^(rustc|cargo) ([0-9]+\.[0-9]+\.[0-9]+).*/\2/p'; }

rust_new_enough() {
    local major minor
    IFS=. read -r major minor _ <<<"$1"
    [ -n "$major" ] && { [ "$major" -gt $RUST_MIN_MAJOR ] ||
        { [ "$major" -eq $RUST_MIN_MAJOR ] && [ "$minor" -ge $RUST_MIN_MINOR ]; }; }
}

# use_rust CARGO RUSTC RUSTDOC: takes them if both are new enough. Sets $cargo, and RUSTC and RUSTDOC so that
# Debian's cargo does not pick up an older (or a rustup's) compiler that comes first in PATH.
use_rust() {
    rust_new_enough "$(rust_version "$1")" && rust_new_enough "$(rust_version "$2")" || return 1
    # shellcheck disable=SC2034 # ./run and ./test read it
    cargo=$1
    export RUSTC=$2 RUSTDOC=$3
}

find_rust() {
    if [ -n "${RUSTC:-}" ] && use_rust cargo "$RUSTC" "${RUSTDOC:-rustdoc}"; then return 0; fi
    use_rust cargo rustc rustdoc ||
        use_rust "$HOME/.cargo/bin/cargo" "$HOME/.cargo/bin/rustc" "$HOME/.cargo/bin/rustdoc" ||
        use_rust /usr/bin/cargo /usr/bin/rustc /usr/bin/rustdoc
}

# Debian's packages of the oldest supported toolchain, in four variables; 1 where Debian has none.
# shellcheck disable=SC2034 # ./test and arm.sh read them too
debian_rust_packages() {
    local v
    case $(debian_release) in
        12)
            v=$DEBIAN_12_RUST
            rust_packages=("rustc-web=$v" "libstd-rust-web-dev=$v" "libstd-rust-web-1.85=$v" "cargo-web=$v")
            rust_std_package=libstd-rust-web-dev
            rust_source_package=rust-web-src=$v
            rust_lint_packages=("rust-web-clippy=$v" "rustfmt-web=$v")
            ;;
        13)
            rust_packages=(rustc libstd-rust-dev cargo)
            rust_std_package=libstd-rust-dev
            rust_source_package=rust-src
            rust_lint_packages=(rust-clippy rustfmt)
            ;;
        *) return 1 ;;
    esac
}

# Any Rust from 1.85 on: what PATH has, or Debian's. Exits with advice where neither can be had.
need_rust() {
    find_rust && return 0
    local found
    found=$(rust_version rustc || true)
    if ! debian_rust_packages; then
        fail "edgelog is built with Rust $RUST_MIN_MAJOR.$RUST_MIN_MINOR or newer; found ${found:-none}." \
            "Install one (your distribution's packages, or rustup) so that cargo and rustc are on PATH," \
            "then run this again. On Debian 12 and 13 this script installs Debian's own."
    fi
    say "edgelog needs Rust $RUST_MIN_MAJOR.$RUST_MIN_MINOR or newer; found ${found:-none}. Debian has one."
    if package_installed rustc && [ "$(debian_release)" = 12 ]; then
        say "  Debian 12's rustc-web takes the place of its older rustc: apt-get removes that one."
    fi
    apt_install "the Rust compiler and cargo, to build edgelog with" "${rust_packages[@]}" ||
        fail "$apt_error." "Install Rust $RUST_MIN_MAJOR.$RUST_MIN_MINOR or newer by hand (as root:" \
            "apt-get install ${rust_packages[*]})," "or with rustup, then run this again."
    hash -r
    find_rust || fail "apt-get succeeded, but /usr/bin/cargo is still no Rust $RUST_MIN_MAJOR.$RUST_MIN_MINOR."
}

# A C compiler that links: rustc has no linker of its own.
need_linker() {
    printf 'int main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null && return 0
    if [ -z "$(debian_release)" ]; then
        fail "no C compiler that links a program (cc), and rustc links with it." \
            "Install gcc and the C library's headers (libc6-dev, glibc-devel, musl-dev, ...), then run this again."
    fi
    apt_install "the linker that rustc calls" gcc libc6-dev || fail "$apt_error." \
        "Install them as root: apt-get install gcc libc6-dev"
}

# Crates come over TLS: a minimal Debian has no certificates to check it with.
need_certificates() {
    if [ -n "$(debian_release)" ] && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
        apt_install "to check the servers that crates come from" ca-certificates || fail "$apt_error."
    fi
}
