//! Dates and times of day: microseconds since 1970, civil fields, ISO 8601 text.

use super::clock;

pub const DAY_US: i64 = 86_400_000_000;

/// A civil date and time, without a zone. Months and days count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub year: i32,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub micro: u32,
}

/// Returns the days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub fn days_from_civil(year: i32, month: u8, day: u8) -> i64 {
    clock::days(year, month, day)
}

/// Returns (year, month, day) of a number of days from 1970-01-01 in the years 1 to 9999, else None.
pub fn civil_from_days(days: i64) -> Option<(i32, u8, u8)> {
    let (year, month, day, ..) = is_python_day(days).then(|| clock::civil(days * DAY_US))?;
    Some((year, month, day))
}

const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

/// Whether a day lies in the years 1 to 9999, which is what Python's dates can hold.
pub fn is_python_day(days: i64) -> bool {
    (FIRST_DAY..=LAST_DAY).contains(&days)
}

impl Moment {
    /// Returns the moment that many microseconds after 1970, or None outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        if !is_python_day(micros.div_euclid(DAY_US)) {
            return None;
        }
        let (year, month, day, hour, minute, second, micro) = clock::civil(micros);
        Some(Self { year, month, day, hour, minute, second, micro })
    }

    pub fn to_micros(self) -> i64 {
        days_from_civil(self.year, self.month, self.day) * DAY_US + self.time_micros()
    }

    /// Returns the microseconds since midnight.
    pub fn time_micros(self) -> i64 {
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        seconds * 1_000_000 + i64::from(self.micro)
    }

    pub fn write_date(self, out: &mut Vec<u8>) {
        let mut text = *b"0000-00-00";
        let year = self.year as u32;
        pair(&mut text[0..2], year / 100);
        pair(&mut text[2..4], year % 100);
        pair(&mut text[5..7], u32::from(self.month));
        pair(&mut text[8..10], u32::from(self.day));
        out.extend_from_slice(&text);
    }

    pub fn write_time(self, out: &mut Vec<u8>) {
        let mut text = *b"00:00:00.000000";
        pair(&mut text[0..2], u32::from(self.hour));
        pair(&mut text[3..5], u32::from(self.minute));
        pair(&mut text[6..8], u32::from(self.second));
        pair(&mut text[9..11], self.micro / 10_000);
        pair(&mut text[11..13], self.micro / 100 % 100);
        pair(&mut text[13..15], self.micro % 100);
        out.extend_from_slice(if self.micro == 0 { &text[..8] } else { &text });
    }

    pub fn write_datetime(self, out: &mut Vec<u8>) {
        self.write_date(out);
        out.push(b'T');
        self.write_time(out);
    }
}

fn pair(text: &mut [u8], value: u32) {
    text[0] = b'0' + (value / 10) as u8;
    text[1] = b'0' + (value % 10) as u8;
}

fn digits(text: &[u8]) -> Option<u32> {
    let (mut sum, mut wrong) = (0, false);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        wrong |= digit > 9;
        sum = sum * 10 + u32::from(digit);
    }
    (!wrong).then_some(sum)
}

fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Reads `YYYY-MM-DD` of a real day from year 1.
pub fn parse_date(text: &[u8]) -> Option<(i32, u8, u8)> {
    let text: &[u8; 10] = text.try_into().ok()?;
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = digits(&text[..4])? as i32;
    let month = digits(&text[5..7])? as u8;
    let day = digits(&text[8..])? as u8;
    let real = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    real.then_some((year, month, day))
}

/// Reads `HH:MM:SS` or `HH:MM:SS.f` with 1 to 6 digits: (hour, minute, second, microsecond).
pub fn parse_time(text: &[u8]) -> Option<(u8, u8, u8, u32)> {
    if text.len() < 8 || text.len() > 15 || text[2] != b':' || text[5] != b':' {
        return None;
    }
    let hour = digits(&text[..2])? as u8;
    let minute = digits(&text[3..5])? as u8;
    let second = digits(&text[6..8])? as u8;
    let micro = match text.len() {
        8 => 0,
        9 => return None,
        length if text[8] == b'.' => digits(&text[9..])? * 10_u32.pow(15 - length as u32),
        _ => return None,
    };
    (hour < 24 && minute < 60 && second < 60).then_some((hour, minute, second, micro))
}

/// What follows the clock in an ISO 8601 date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Naive,
    Utc,
}

/// Reads the common forms of an ISO 8601 date and time: without a zone, or in UTC. None means: look closer.
pub fn parse_datetime(text: &[u8]) -> Option<(Moment, Zone)> {
    if text.len() < 19 || !matches!(text[10], b'T' | b' ') {
        return None;
    }
    let (clock, zone) = match &text[11..] {
        [clock @ .., b'Z'] => (clock, Zone::Utc),
        [clock @ .., b'+', b'0', b'0', b':', b'0', b'0'] => (clock, Zone::Utc),
        clock => (clock, Zone::Naive),
    };
    let (year, month, day) = parse_date(&text[..10])?;
    let (hour, minute, second, micro) = parse_time(clock)?;
    Some((Moment { year, month, day, hour, minute, second, micro }, zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_round_trip(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let moment = Moment::from_micros(micros).unwrap();
            prop_assert_eq!(moment.to_micros(), micros);
            let mut text = Vec::new();
            moment.write_datetime(&mut text);
            prop_assert_eq!(parse_datetime(&text), Some((moment, Zone::Naive)));
            text.push(b'Z');
            prop_assert_eq!(parse_datetime(&text), Some((moment, Zone::Utc)));
        }

        #[test]
        fn any_text_is_read_without_panic(text: Vec<u8>) {
            let _ = parse_datetime(&text);
            let _ = parse_date(&text);
            let _ = parse_time(&text);
        }

        #[test]
        fn any_number_of_microseconds_is_taken_without_panic(micros: i64) {
            let _ = Moment::from_micros(micros);
        }
    }

    #[test]
    fn the_ends_of_the_calendar_are_exact() {
        assert_eq!(days_from_civil(1, 1, 1), FIRST_DAY);
        assert_eq!(days_from_civil(9999, 12, 31), LAST_DAY);
        assert_eq!(Moment::from_micros((LAST_DAY + 1) * DAY_US), None);
    }

    #[test]
    fn each_day_of_ten_thousand_years_follows_the_one_before() {
        let mut today = (1, 1, 1);
        for number in FIRST_DAY..=LAST_DAY {
            let (year, month, day) = today;
            assert_eq!(civil_from_days(number), Some(today));
            assert_eq!(days_from_civil(year, month, day), number);
            today = match (day == days_in_month(year, month), month) {
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
                (false, _) => (year, month, day + 1),
            };
        }
        assert_eq!(today, (10_000, 1, 1));
    }

    #[test]
    fn impossible_days_and_times_are_refused() {
        assert_eq!(parse_date(b"2023-02-29"), None);
        assert_eq!(parse_date(b"0000-01-01"), None);
        assert_eq!(parse_time(b"24:00:00"), None);
        assert_eq!(parse_time(b"10:00:00."), None);
    }
}
