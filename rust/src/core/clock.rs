//! Microsecond UTC clock and time-ordered identifiers (UUIDv7, RFC 9562 §5.7).
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time at which a test has stopped the clock; the smallest number while it runs.
static FROZEN_US: AtomicI64 = AtomicI64::new(i64::MIN);
/// The number of the next id while a test has ids counted; 0 while they are random.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Stops the clock at a time, or lets it run again. For tests: it holds for the whole process.
pub fn freeze(us: Option<i64>) {
    FROZEN_US.store(us.unwrap_or(i64::MIN), Ordering::Relaxed);
}

/// The time at which the clock stands still, None while it runs.
#[inline]
pub fn frozen_us() -> Option<i64> {
    match FROZEN_US.load(Ordering::Relaxed) {
        i64::MIN => None,
        us => Some(us),
    }
}

/// Counts ids from `first` (at least 1), or makes them random again. For tests: it holds for the whole process.
pub fn number_ids(first: Option<u64>) {
    NEXT_NUMBER.store(first.map_or(0, |first| first.max(1)), Ordering::Relaxed);
}

/// The number of the next id, None while ids are random.
pub fn next_id_number() -> Option<u64> {
    match NEXT_NUMBER.load(Ordering::Relaxed) {
        0 => None,
        next => Some(next),
    }
}

/// `00000000-0000-7000-8000-` followed by the number: the form of a UUIDv7 that people can read.
fn numbered_id() -> [u8; 16] {
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
    bytes[10..].copy_from_slice(&number.to_be_bytes()[2..]);
    bytes
}

/// Microseconds since 1970-01-01 UTC; negative when the machine's clock stands before that.
pub fn now_us() -> i64 {
    if let Some(frozen) = frozen_us() {
        return frozen;
    }
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64 * 1_000_000 + i64::from(since.subsec_micros()),
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

/// Dates are computed by years that begin on 1 March, with 32 bits and without a division by a variable (Cassio Neri and
/// Lorenz Schneider), from so many eras of 400 years earlier that no day of 64-bit microseconds is negative.
const ERAS: u32 = 3670;
const DAYS_BEFORE_1970: i64 = 719_468 + 146_097 * ERAS as i64;

/// Calendar time of a microsecond count: year, month, day, hour, minute, second, microsecond.
pub fn civil(us: i64) -> (i32, u8, u8, u8, u8, u8, u32) {
    const DAY: i64 = 86_400_000_000;
    let days = us.div_euclid(DAY);
    let rest = us.rem_euclid(DAY);
    let day = (days + DAYS_BEFORE_1970) as u32;
    let quarters = 4 * day + 3;
    let century = quarters / 146_097;
    let quarters = (quarters % 146_097) | 3;
    let years = 2_939_745 * u64::from(quarters);
    let day_of_year = years as u32 / 2_939_745 / 4;
    let year = 100 * century + (years >> 32) as u32;
    let months = 2141 * day_of_year + 197_913;
    let after_new_year = day_of_year >= 306;
    let month = (months >> 16) - if after_new_year { 12 } else { 0 };
    let day = (months & 0xFFFF) / 2141 + 1;
    let year = (year + u32::from(after_new_year)).wrapping_sub(400 * ERAS) as i32;
    let second = (rest / 1_000_000) as u32;
    (
        year,
        month as u8,
        day as u8,
        (second / 3600) as u8,
        (second / 60 % 60) as u8,
        (second % 60) as u8,
        (rest % 1_000_000) as u32,
    )
}

/// Microseconds since 1970-01-01 of a calendar time; the inverse of `civil`.
pub fn from_civil(year: i32, month: u8, day: u8, hour: u8, minute: u8, second: u8, us: u32) -> i64 {
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    (days(year, month, day) * 86_400 + seconds) * 1_000_000 + i64::from(us)
}

/// Days since 1970-01-01 of a calendar date, by the method of `civil`.
pub fn days(year: i32, month: u8, day: u8) -> i64 {
    let before_march = month <= 2;
    let year = (year + 400 * ERAS as i32) as u32 - u32::from(before_march);
    let month = u32::from(month) + if before_march { 12 } else { 0 };
    let century = year / 100;
    let days = 1461 * year / 4 - century + century / 4 + (979 * month - 2919) / 32 + u32::from(day) - 1;
    i64::from(days) - DAYS_BEFORE_1970
}

/// Generator of UUIDv7: milliseconds, a counter that makes ids of one process strictly increasing, 62 random bits.
pub struct Uuid7 {
    /// Last time given out: milliseconds << 12 | counter. A full counter runs into the next millisecond.
    last: AtomicU64,
    /// Position in the random sequence.
    position: AtomicU64,
    seed: AtomicU64,
}

impl Uuid7 {
    /// A generator that still needs its `reseed`.
    pub const fn unseeded() -> Self {
        Uuid7 { last: AtomicU64::new(0), position: AtomicU64::new(0), seed: AtomicU64::new(0) }
    }

    /// Takes new entropy from the system: a forked process must not repeat its parent's ids.
    pub fn reseed(&self) {
        let process = std::process::id();
        let time = SystemTime::now();
        // `RandomState` draws its keys from the operating system once per thread and then counts up, so the
        // process id and the clock are hashed in for the child of a fork.
        self.seed.store(RandomState::new().hash_one((process, time, 1_u8)), Ordering::Relaxed);
        self.position.store(RandomState::new().hash_one((process, time, 2_u8)), Ordering::Relaxed);
    }

    #[inline]
    fn random(&self) -> u64 {
        // SplitMix64 over a shared position, whitened with a second seed.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.position.load(Ordering::Relaxed);
        self.position.store(z.wrapping_add(STEP), Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) ^ self.seed.load(Ordering::Relaxed)
    }

    /// The next id as the sixteen bytes of RFC 9562, for an event at `us` microseconds since 1970. Callers take turns: in
    /// Python the interpreter's lock sees to that.
    #[inline]
    pub fn next(&self, us: i64) -> [u8; 16] {
        if NEXT_NUMBER.load(Ordering::Relaxed) != 0 {
            return numbered_id();
        }
        let wanted = ((us.max(0) / 1000) as u64) << 12;
        // Not one atomic step, which would cost more than all the rest: callers take turns.
        let time = wanted.max(self.last.load(Ordering::Relaxed) + 1);
        self.last.store(time, Ordering::Relaxed);
        let high = (time >> 12 << 16) | 0x7000 | (time & 0xFFF);
        let low = (2 << 62) | (self.random() >> 2);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn calendar_time_round_trips(us in prop_oneof![
            -62_135_596_800_000_000_i64..253_402_300_800_000_000,
            i64::MIN + 100_000_000_000..i64::MAX,
        ]) {
            let (year, month, day, hour, minute, second, rest) = civil(us);
            let in_python = (-62_135_596_800_000_000..253_402_300_800_000_000).contains(&us);
            prop_assert_eq!((1..=9999).contains(&year), in_python);
            prop_assert_eq!(from_civil(year, month, day, hour, minute, second, rest), us);
        }
    }

    #[test]
    fn ids_of_one_process_increase_and_carry_version_and_variant() {
        let source = Uuid7::unseeded();
        source.reseed();
        let mut last = [0; 16];
        for _ in 0..20_000 {
            let id = source.next(1_700_000_000_000_000);
            assert!(id > last);
            assert_eq!(id[6] >> 4, 7);
            assert_eq!(id[8] >> 6, 2);
            last = id;
        }
    }
}
