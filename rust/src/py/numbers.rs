//! Integers and decimals read where the interpreter keeps them: asking it for the sixteen bytes of a UUID or the text of a
//! `Decimal` costs as much as encoding five other fields.
//!
//! The interpreter does not promise where that is. So each kind is tried on values that are known before the first use,
//! and asked for as usual if it is not as expected. No trial reads beyond an object, whatever is in it.
#![allow(unsafe_code)]

use std::mem::offset_of;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// Bits in a digit of an `int`.
const DIGIT: usize = 30;
/// Digits of 128 bits.
const MOST: usize = 5;

/// The beginning of an `int`.
#[repr(C)]
struct Int {
    head: ffi::PyObject,
    /// The number of digits; from 3.12 on three bits below it are 0 for a positive number.
    size: usize,
    digits: [u32; MOST],
}

/// How far the number of digits is shifted; None if digits are not where they should be.
#[inline]
fn shift(py: Python<'_>) -> Option<u32> {
    static SHIFT: PyOnceLock<Option<u32>> = PyOnceLock::new();
    match SHIFT.get(py) {
        Some(found) => *found,
        None => *SHIFT.get_or_init(py, || find_shift(py)),
    }
}

#[cold]
fn find_shift(py: Python<'_>) -> Option<u32> {
    // Numbers with all five digits, so that each has as much memory as is read, whatever is in it.
    let known = [u128::MAX, 1 << 120, 0x0123_4567_89AB_CDEF_FEDC_BA98_7654_3210];
    let reads = |shift: u32| {
        let read = |number: u128| number.into_pyobject(py).is_ok_and(|made| read_int(&made, shift) == Some(number));
        known.into_iter().all(read)
    };
    [0, 3].into_iter().find(|shift| reads(*shift))
}

/// The value of what is exactly an `int` of 1 to 128 bits; None for anything else, and where it cannot be read.
#[inline]
pub fn wide_int(value: &Bound<'_, PyAny>) -> Option<u128> {
    read_int(value, shift(value.py())?)
}

#[inline]
fn read_int(value: &Bound<'_, PyAny>, shift: u32) -> Option<u128> {
    let object = value.as_ptr();
    // SAFETY: a live object that is exactly an `int`, which has a size; as many digits are read as it has, at most five.
    unsafe {
        if ffi::PyLong_CheckExact(object) == 0 {
            return None;
        }
        let int = object.cast::<Int>();
        let count = (*int).size >> shift;
        if count > MOST || (*int).size != count << shift {
            return None;
        }
        let digits = object.cast::<u8>().add(offset_of!(Int, digits)).cast::<u32>();
        let mut number = 0_u128;
        for place in (0..count).rev() {
            if number >> (u128::BITS as usize - DIGIT) != 0 {
                return None;
            }
            number = number << DIGIT | u128::from(digits.add(place).read());
        }
        Some(number)
    }
}

/// A decimal of at most 19 digits: `coefficient` × 10^`exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortDecimal {
    pub negative: bool,
    pub coefficient: u64,
    pub exponent: isize,
}

/// A `decimal.Decimal` of the C implementation, on systems with 64 bits.
#[repr(C)]
struct Decimal {
    head: ffi::PyObject,
    hash: ffi::Py_hash_t,
    flags: u8,
    exponent: isize,
    digits: isize,
    /// Words of the coefficient, which has up to 19 digits in each.
    words: isize,
    room: isize,
    data: *const u64,
    /// Where `data` points to, unless the number is long.
    own: [u64; 4],
}

/// The flag of a negative number, and those of infinities and of what is not a number.
const NEGATIVE: u8 = 1;
const SPECIAL: u8 = 14;

/// Reads decimals of one class, which cannot change.
pub struct Decimals {
    class: Py<PyType>,
    readable: bool,
}

impl Decimals {
    /// `class` is `decimal.Decimal`.
    pub fn new(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let mut found = Self { class: class.clone().unbind(), readable: false };
        let size: usize = class.getattr(intern!(py, "__basicsize__"))?.extract()?;
        if size != size_of::<Decimal>() || size_of::<usize>() != size_of::<u64>() {
            return Ok(found);
        }
        found.readable = true;
        let known = [
            ("0", 0, 0),
            ("-12.50", 1250, -2),
            ("9999999999999999999E-3", 9_999_999_999_999_999_999, -3),
            ("7E+9", 7, 9),
        ];
        for (text, coefficient, exponent) in known {
            let wanted = ShortDecimal { negative: text.starts_with('-'), coefficient, exponent };
            found.readable &= found.get(&class.call1((text,))?) == Some(wanted);
        }
        for text in ["10000000000000000000", "Infinity", "-Infinity", "NaN", "sNaN", "NaN7"] {
            found.readable &= found.get(&class.call1((text,))?).is_none();
        }
        Ok(found)
    }

    /// The parts of a decimal; None for a long one, an infinity, what is not a number, or where they cannot be read.
    #[inline]
    pub fn get(&self, value: &Bound<'_, PyAny>) -> Option<ShortDecimal> {
        let object = value.as_ptr();
        // SAFETY: a live object of exactly the class, whose instances are as large as `Decimal`, so that every byte read is
        // the object's own, whatever it means: `data` is compared and not followed. Whoever has a reference may read, as
        // decimals do not change.
        unsafe {
            if !self.readable || ffi::Py_TYPE(object).cast() != self.class.as_ptr() {
                return None;
            }
            let decimal = object.cast::<Decimal>();
            let own = object.cast::<u8>().add(offset_of!(Decimal, own)).cast::<u64>();
            let short = (*decimal).words == 1 && (*decimal).flags & SPECIAL == 0 && std::ptr::eq((*decimal).data, own);
            short.then(|| ShortDecimal {
                negative: (*decimal).flags & NEGATIVE != 0,
                coefficient: own.read(),
                exponent: (*decimal).exponent,
            })
        }
    }
}
