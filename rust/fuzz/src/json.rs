//! Strict JSON: accepted exactly where `serde_json` accepts it, up to the depth allowed, with the same texts.
use serde_json::value::RawValue;

use crate::core::json::{Scanner, Text};
use crate::core::json_text;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut scanner = Scanner::new(text);
    let ours = scanner.skip().and_then(|value| scanner.end().map(|()| value));
    let theirs = serde_json::from_str::<&RawValue>(text);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(*ours, theirs.get()),
        (Err(malformed), Ok(_)) => assert_eq!(malformed.expected, "less nesting"),
        (Ok(_), Err(error)) => panic!("accepted although {error}"),
        (Err(malformed), Err(_)) => assert!(malformed.at <= text.len()),
    }
    if let Ok(Ok(found)) = theirs.map(|_| serde_json::from_str::<String>(text)) {
        let mut scanner = Scanner::new(text);
        match scanner.string() {
            Ok(Text::Plain(ours)) => assert_eq!(ours, found),
            Ok(Text::Unescaped(ours)) => assert_eq!(ours, found),
            other => panic!("{other:?} instead of {found:?}"),
        }
        written_again(&found);
    }
    written_again(text);
    every_token(text);
}

fn written_again(text: &str) {
    let mut out = Vec::new();
    json_text::write_string(&mut out, text);
    assert_eq!(serde_json::from_slice::<String>(&out).expect("a string of ours is JSON"), text);
    let mut wtf8 = Vec::new();
    json_text::write_wtf8(&mut wtf8, text.as_bytes());
    assert_eq!(wtf8, out);
}

/// The calls of the scanner in every order that the input asks for: no panic, always forward.
fn every_token(text: &str) {
    let mut scanner = Scanner::new(text);
    for choice in text.bytes().rev().take(200) {
        let before = scanner.at;
        match choice % 8 {
            0 => drop(scanner.string()),
            1 => drop(scanner.number()),
            2 => drop(scanner.literal()),
            3 => drop(scanner.class()),
            4 => drop(scanner.more(b']', "comma or ]")),
            5 => drop(scanner.take_exact(b"\"a\":")),
            6 => drop(scanner.skip()),
            _ => drop(scanner.take(choice)),
        }
        assert!(before <= scanner.at && scanner.at <= text.len() + 1);
        if scanner.at > text.len() {
            break;
        }
    }
}
