//! Memory for large results: used again, never twice at a time, and bounded.

use softxent::error::Error;
use softxent::memory::{Block, PAGE, kept, limit, release};

/// One test: what waits is the whole process's.
#[test]
fn a_block_that_is_gone_is_the_next_of_its_size_until_it_is_released() {
    let first = Block::new(3 * PAGE).unwrap();
    let address = first.address();
    assert_eq!(address.addr() % 64, 0);
    drop(first);
    if limit() == 0 {
        return; // nothing waits on this system
    }
    assert_eq!(kept(), 3 * PAGE);

    let smaller = Block::new(PAGE).unwrap();
    assert_ne!(smaller.address(), address, "most of it would lie idle");
    let larger = Block::new(3 * PAGE + 1).unwrap();
    assert_ne!(larger.address(), address, "it is too small");
    let same = Block::new(2 * PAGE + 1).unwrap();
    assert_eq!(same.address(), address);
    let other = Block::new(3 * PAGE).unwrap();
    assert_ne!(other.address(), address, "it is in use");

    drop([smaller, larger, same, other]);
    assert_eq!(release(), (1 + 4 + 3 + 3) * PAGE);
    assert_eq!(kept(), 0);

    // Beyond the limit the ones that have waited longest go. Nobody writes to these, so they take no memory.
    let third = limit() / 3 / PAGE * PAGE;
    let blocks = [third, third + PAGE, third - PAGE, third].map(|size| Block::new(size).unwrap());
    blocks.into_iter().for_each(drop);
    assert_eq!(kept(), (third + PAGE) + (third - PAGE) + third);
    release();
}

#[test]
fn what_can_not_be_mapped_is_an_error() {
    for bytes in [usize::MAX, usize::MAX / 2] {
        assert!(matches!(Block::new(bytes), Err(Error::Memory(_))));
    }
}
