//! Defends programs that import all of the library's names at once.

use edgelog::*;

#[test]
fn what_rust_itself_names_so_stays_what_it_is() -> Result<()> {
    // `use edgelog::*` made `core` the package edgelog-core.
    assert_eq!(core::mem::size_of::<Offset>(), 8);
    let parsed: Result<u8, core::num::ParseIntError> = "7".parse();
    assert_eq!(parsed.ok(), Some(7));
    assert!(matches!(CompressionType::None, edgelog_core::CompressionType::None));
    let name: TopicPartition = "t-0".parse()?;
    assert_eq!(name.partition, 0);
    Ok(())
}
