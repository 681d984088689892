use super::*;
use crate::core::json_text::{parse_duration, write_duration, write_string, write_wtf8};
use proptest::prelude::*;

fn read(text: &str) -> Scan<Text<'_>> {
    let mut scanner = Scanner::new(text);
    let found = scanner.string()?;
    scanner.end()?;
    Ok(found)
}

proptest! {
    #[test]
    fn strings_round_trip(text: String) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        let written = String::from_utf8(out).unwrap();
        match read(&written).unwrap() {
            Text::Plain(found) => prop_assert_eq!(found, text),
            Text::Unescaped(found) => prop_assert_eq!(found, text),
            Text::Lone(_) => prop_assert!(false),
        }
    }

    #[test]
    fn any_text_is_skipped_or_refused_without_panic(text in "[\\[\\]{}:,\"0-9eE.+\\-truefalsn\\\\ud8é ]{0,60}") {
        let _ = Scanner::new(&text).skip();
        let _ = Scanner::new(&text).number();
        let _ = Scanner::new(&text).string();
    }
}

#[test]
fn lone_surrogates_come_back_as_they_were() {
    let bytes = b"a\xED\xA0\x80\"\xED\xBF\xBFz";
    let mut out = Vec::new();
    write_wtf8(&mut out, bytes);
    assert_eq!(out, b"\"a\\ud800\\\"\\udfffz\"");
    assert_eq!(read(std::str::from_utf8(&out).unwrap()), Ok(Text::Lone(bytes.to_vec())));
    assert_eq!(read(r#""\ud83d\ude00""#), Ok(Text::Unescaped("😀".into())));
}

#[test]
fn only_real_json_numbers_are_numbers() {
    for (text, whole) in [("0", true), ("-12", true), ("1.5", false), ("2e10", false), ("-0.0E-3", false)] {
        let mut scanner = Scanner::new(text);
        assert_eq!(scanner.number().unwrap().whole, whole);
        assert!(scanner.end().is_ok());
    }
    for text in ["", "-", "01", "1.", ".5", "1e", "+1", "NaN", "0x1"] {
        let mut scanner = Scanner::new(text);
        assert!(scanner.number().is_err() || scanner.end().is_err(), "{text}");
    }
}

#[test]
fn malformed_structures_are_refused() {
    for text in ["[1,]", "{\"a\":1,}", "{a:1}", "[1 2]", "\"\u{1}\"", "\"\\x\"", "nul", "[", "{\"a\"}", "\"\\u12g4\""] {
        assert!(Scanner::new(text).skip().is_err(), "{text}");
    }
    let deep = "[".repeat(MAX_DEPTH + 2) + &"]".repeat(MAX_DEPTH + 2);
    assert_eq!(Scanner::new(&deep).skip().unwrap_err().expected, "less nesting");
}

proptest! {
    #[test]
    fn durations_round_trip(days in -999_999_999_i64..=999_999_999, seconds in 0_i64..86_400, micros in 0_i64..1_000_000) {
        let mut out = Vec::new();
        write_duration(&mut out, days, seconds, micros);
        let (d, s, u) = parse_duration(std::str::from_utf8(&out).unwrap()).unwrap();
        let total = |d: i64, s: i64, u: i64| i128::from(d) * 86_400_000_000 + i128::from(s) * 1_000_000 + i128::from(u);
        prop_assert_eq!(total(d, s, u), total(days, seconds, micros));
    }

    #[test]
    fn any_duration_text_is_read_without_panic(text in "-?P?[0-9]{0,12}D?T?[0-9.]{0,9}S?") {
        let _ = parse_duration(&text);
    }
}
