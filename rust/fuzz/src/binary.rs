//! The binary form: any bytes give JSON of bounded size or an error.
use crate::core::binary::Reader;
use crate::core::json::Scanner;
use crate::core::shapes::Shapes;
use crate::core::transcode;

pub fn check(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut out = Vec::new();
    let mut shapes = Shapes::default();
    let transcoded = transcode::value(&mut reader, &mut shapes, &mut out);
    assert!(reader.at <= data.len());
    if transcoded.is_ok()
        && let Ok(text) = std::str::from_utf8(&out)
    {
        let mut scanner = Scanner::new(text);
        match scanner.skip().and_then(|_| scanner.end()) {
            Ok(()) => {}
            // Tagged values nest twice as deep in JSON.
            Err(malformed) => assert_eq!(malformed.expected, "less nesting", "{text}"),
        }
    }
    every_read(data);
}

/// The calls of the reader in every order that the input asks for: no panic, never beyond the end.
fn every_read(data: &[u8]) {
    let mut reader = Reader::new(data);
    for choice in data.iter().rev().take(200) {
        let before = reader.at;
        match choice % 10 {
            0 => drop(reader.varint()),
            1 => drop(reader.zigzag()),
            2 => drop(reader.count()),
            3 => drop(reader.bytes()),
            4 => drop(reader.text()),
            5 => drop(reader.array::<16>()),
            6 => drop(transcode::duration(&mut reader)),
            7 => drop(reader.short(data[before.min(data.len() - 1)])),
            8 => drop(reader.fixed::<8>(data[before.min(data.len() - 1)])),
            _ => drop(reader.take_exact(&data[..data.len().min(3)])),
        }
        assert!(before <= reader.at && reader.at <= data.len());
        assert_eq!(reader.since(before).len(), reader.at - before);
    }
}
