//! Texts of ids, bytes, dates, times and durations: what is read is written as the same text, or as one that is read
//! as the same value.
use crate::core::calendar::{self, Moment};
use crate::core::{clock, json_text, partition, text};

pub fn check(data: &[u8]) {
    if let Some(id) = text::parse_uuid(data) {
        let canonical = text::format_uuid(&id);
        assert!(text::is_canonical_uuid(&canonical) && canonical.eq_ignore_ascii_case(data));
    }
    if let Some(bytes) = text::read_base64(data) {
        let mut out = Vec::new();
        text::write_base64(&mut out, &bytes);
        assert_eq!(text::read_base64(&out), Some(bytes));
        assert_eq!(out.len(), data.len());
    }
    if let Some((moment, _)) = calendar::parse_datetime(data) {
        moment_again(moment);
    }
    if let Some((year, month, day)) = calendar::parse_date(data) {
        assert_eq!(calendar::civil_from_days(calendar::days_from_civil(year, month, day)), Some((year, month, day)));
    }
    let _ = calendar::parse_time(data);
    if let Ok(text) = std::str::from_utf8(data) {
        duration_again(text);
        let _ = partition::partition_hash(text);
    }
    if let Some((number, _)) = data.split_first_chunk() {
        let number = i64::from_le_bytes(*number);
        if let Some(moment) = Moment::from_micros(number) {
            assert_eq!(moment.to_micros(), number);
            moment_again(moment);
        }
        if calendar::is_python_day(number) {
            assert!(calendar::civil_from_days(number).is_some());
        } else {
            assert!(calendar::civil_from_days(number).is_none());
        }
        let _ = clock::civil(number);
        decimal_again(number < 0, number.unsigned_abs(), isize::from(data[0] as i8));
    }
}

fn moment_again(moment: Moment) {
    let mut out = Vec::new();
    moment.write_datetime(&mut out);
    let again = calendar::parse_datetime(&out).expect("what is written is read");
    assert_eq!(again.0, moment);
}

fn duration_again(text: &str) {
    let Some((days, seconds, micros)) = json_text::parse_duration(text) else { return };
    // Python normalises the parts before they are written.
    let total = i128::from(days) * 86_400_000_000 + i128::from(seconds) * 1_000_000 + i128::from(micros);
    let (day, rest) = (total.div_euclid(86_400_000_000) as i64, total.rem_euclid(86_400_000_000) as i64);
    if day.unsigned_abs() > 999_999_999 {
        return; // no timedelta is as long
    }
    let mut out = Vec::new();
    json_text::write_duration(&mut out, day, rest / 1_000_000, rest % 1_000_000);
    let written = std::str::from_utf8(&out).expect("ASCII");
    let (days, seconds, micros) = json_text::parse_duration(written).expect("what is written is read");
    assert_eq!(i128::from(days) * 86_400_000_000 + i128::from(seconds) * 1_000_000 + i128::from(micros), total);
}

fn decimal_again(negative: bool, coefficient: u64, exponent: isize) {
    let mut room = [0; 32];
    let Some(text) = text::plain_decimal(negative, coefficient, exponent, &mut room) else { return };
    let text = std::str::from_utf8(text).unwrap();
    assert_eq!(text.starts_with('-'), negative);
    let (whole, places) = text.trim_start_matches('-').split_once('.').unwrap_or((text.trim_start_matches('-'), ""));
    assert_eq!((format!("{whole}{places}").parse(), places.len() as isize), (Ok(coefficient), -exponent));
}
