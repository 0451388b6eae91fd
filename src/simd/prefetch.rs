//! How far ahead this processor likes to be asked for memory. It changes no result.

/// Whether lines are best asked for long before they are needed, in the order in which they lie, and into the second
/// cache; `row::streams` has the measurements. So it is on AMD's processors up to Zen 4.
#[cfg(target_arch = "x86_64")]
pub fn reads_far_ahead() -> bool {
    use std::sync::OnceLock;
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let vendor = core::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx] == VENDOR.map(u32::from_le_bytes) && family() < ZEN_5
    })
}

/// The family of this processor: two fields that are added.
#[cfg(target_arch = "x86_64")]
fn family() -> u32 {
    let version = core::arch::x86_64::__cpuid(1).eax;
    (version >> 8 & 0xf) + (version >> 20 & 0xff)
}

#[cfg(target_arch = "x86_64")]
const ZEN_5: u32 = 0x1a;

#[cfg(target_arch = "x86_64")]
const VENDOR: [[u8; 4]; 3] = [*b"Auth", *b"enti", *b"cAMD"];

/// Nothing is known of others.
#[cfg(not(target_arch = "x86_64"))]
pub fn reads_far_ahead() -> bool {
    false
}
