//! Which version this is.

use std::ffi::c_char;

/// The major number, which is the soname's: a program runs with every later library that has the same.
pub const EDGELOG_VERSION_MAJOR: u32 = 0;
/// The minor number.
pub const EDGELOG_VERSION_MINOR: u32 = 1;
/// The patch number.
pub const EDGELOG_VERSION_PATCH: u32 = 0;
/// All three as one number that can be compared: major * 1000000 + minor * 1000 + patch.
pub const EDGELOG_VERSION_NUMBER: u32 = 1000;

/// The version of the library that runs, such as "0.1.0". Lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn edgelog_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the library that runs, to compare with EDGELOG_VERSION_NUMBER.
#[unsafe(no_mangle)]
pub extern "C" fn edgelog_version_number() -> u32 {
    EDGELOG_VERSION_NUMBER
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header cannot read Cargo.toml: its constants are numbers, and every one of them is held to it here.
    #[test]
    fn the_headers_version_is_cargos() {
        let number = |text: &str| text.parse::<u32>().expect("a number");
        let (major, minor) = (number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR")));
        let patch = number(env!("CARGO_PKG_VERSION_PATCH"));
        let macro_line = format!("#define EDGELOG_VERSION \"{}\"", env!("CARGO_PKG_VERSION"));
        for made_from in [include_str!("../cbindgen.toml"), include_str!("../include/edgelog.h")] {
            assert!(made_from.lines().any(|line| line == macro_line), "{macro_line}");
        }
        assert_eq!([EDGELOG_VERSION_MAJOR, EDGELOG_VERSION_MINOR, EDGELOG_VERSION_PATCH], [major, minor, patch]);
        assert_eq!(EDGELOG_VERSION_NUMBER, major * 1_000_000 + minor * 1000 + patch);
    }
}
