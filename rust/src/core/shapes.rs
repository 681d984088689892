//! The record shapes of a binary payload, whose field names are said once.

use super::binary::{Damaged, Reader};

type Read<T> = Result<T, Damaged>;

/// Most bytes of names that are read for one payload, those read again for each record included.
const MAX_NAMES_BYTES: u64 = 1024 * 1024 * 1024;

/// The record shapes met so far in a payload: where the field names of each begin.
#[derive(Default)]
pub struct Shapes {
    /// The first one, which is most often the only one, has its place here.
    first: Option<usize>,
    others: Vec<usize>,
    names_bytes: u64,
}

impl Shapes {
    #[inline]
    fn push(&mut self, place: usize) {
        if self.first.is_none() { self.first = Some(place) } else { self.others.push(place) }
    }

    #[inline]
    fn get(&self, index: u64) -> Option<usize> {
        match index {
            0 => self.first,
            _ => self.others.get(usize::try_from(index - 1).ok()?).copied(),
        }
    }

    /// Takes the shape of a record and returns the place of its names.
    #[inline]
    pub fn place(&mut self, reader: &mut Reader<'_>) -> Read<usize> {
        let number = reader.varint()?;
        if number == 0 {
            self.push(reader.at);
            return Ok(reader.at);
        }
        match self.get(number - 1) {
            Some(place) => Ok(place),
            None => reader.fail("a shape that was defined"),
        }
    }

    /// Reads the names of a shape; `reader` is at their place.
    pub fn names<'a>(&mut self, reader: &mut Reader<'a>) -> Read<Vec<&'a str>> {
        let start = reader.at;
        let names = (0..reader.count()?).map(|_| reader.text()).collect::<Read<Vec<_>>>()?;
        self.names_bytes += (reader.at - start) as u64;
        if self.names_bytes > MAX_NAMES_BYTES { reader.fail("fewer or shorter names") } else { Ok(names) }
    }
}
