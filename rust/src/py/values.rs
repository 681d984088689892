//! `uuid.UUID` and `datetime` values to and from their native form.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateAccess, PyDateTime, PyString, PyTimeAccess, PyType, PyTzInfo, PyTzInfoAccess};

use super::{event, numbers};
use crate::core::clock;
use crate::errors::EventValidationError;

struct UuidParts {
    class: Py<PyType>,
    /// Places of `int` and `is_safe`, where this Python has them as slots.
    slots: Option<event::SlotTable>,
    unknown_safety: Py<PyAny>,
}

fn uuid_parts(py: Python<'_>) -> PyResult<&'static UuidParts> {
    static PARTS: PyOnceLock<UuidParts> = PyOnceLock::new();
    PARTS.get_or_try_init(py, || {
        let module = py.import(intern!(py, "uuid"))?;
        let class = module.getattr("UUID")?.cast_into::<PyType>()?;
        Ok(UuidParts {
            slots: event::SlotTable::of(&class, &[intern!(py, "int").clone(), intern!(py, "is_safe").clone()])?,
            class: class.unbind(),
            unknown_safety: module.getattr("SafeUUID")?.getattr("unknown")?.unbind(),
        })
    })
}

/// Whether `value` is exactly a `uuid.UUID`.
pub fn is_uuid(value: &Bound<'_, PyAny>) -> bool {
    uuid_parts(value.py()).is_ok_and(|parts| std::ptr::eq(value.get_type_ptr().cast(), parts.class.as_ptr()))
}

/// The sixteen bytes of a value that is exactly a `uuid.UUID`, None for anything else.
#[inline]
pub fn exact_uuid(value: &Bound<'_, PyAny>) -> Option<[u8; 16]> {
    let slots = uuid_parts(value.py()).ok()?.slots.as_ref()?;
    int_bytes(&slots.get(value, 0)?).ok()
}

/// The sixteen bytes of the integer that a UUID holds.
#[inline]
fn int_bytes(int: &Bound<'_, PyAny>) -> PyResult<[u8; 16]> {
    let wide = numbers::wide_int(int);
    wide.map_or_else(|| int.extract::<u128>(), Ok).map(u128::to_be_bytes)
}

/// A `uuid.UUID` of sixteen bytes in RFC order.
pub fn uuid_from_bytes<'py>(py: Python<'py>, bytes: [u8; 16]) -> PyResult<Bound<'py, PyAny>> {
    let parts = uuid_parts(py)?;
    // Past `UUID.__init__`, which takes a microsecond for its many forms of input.
    let uuid = event::bare_instance(parts.class.bind(py))?;
    let int = u128::from_be_bytes(bytes).into_pyobject(py)?;
    if let Some(slots) = &parts.slots
        && slots.put(&uuid, 0, int.clone().into_any())
        && slots.put(&uuid, 1, parts.unknown_safety.bind(py).clone())
    {
        return Ok(uuid);
    }
    event::generic_setattr(&uuid, intern!(py, "int"), &int)?;
    event::generic_setattr(&uuid, intern!(py, "is_safe"), parts.unknown_safety.bind(py))?;
    Ok(uuid)
}

/// The sixteen bytes of a `uuid.UUID`, or of a string in a form that `uuid.UUID` reads.
pub fn uuid_to_bytes(value: &Bound<'_, PyAny>, field: &str) -> PyResult<[u8; 16]> {
    let py = value.py();
    let parts = uuid_parts(py)?;
    if let Some(int) = parts.slots.as_ref().and_then(|slots| slots.get(value, 0)) {
        return int_bytes(&int);
    }
    let class = parts.class.bind(py);
    if value.is_instance(class)? {
        let int: u128 = value.getattr(intern!(py, "int"))?.extract()?;
        return Ok(int.to_be_bytes());
    }
    if value.is_instance_of::<PyString>()
        && let Ok(parsed) = class.call1((value,))
    {
        return uuid_to_bytes(&parsed, field);
    }
    let message = format!("{field} must be a UUID, not {}", shown(value));
    Err(EventValidationError::new_err((message, field.to_owned())))
}

/// A timezone-aware UTC `datetime` of microseconds since 1970.
pub fn datetime_from_us(py: Python<'_>, us: i64) -> PyResult<Bound<'_, PyAny>> {
    let (year, month, day, hour, minute, second, micro) = clock::civil(us);
    let utc = PyTzInfo::utc(py)?;
    Ok(PyDateTime::new(py, year, month, day, hour, minute, second, micro, Some(&utc))?.into_any())
}

/// Microseconds since 1970 of a `datetime` (without a time zone: taken as UTC) or an ISO 8601 string.
pub fn datetime_to_us(value: &Bound<'_, PyAny>, field: &str) -> PyResult<i64> {
    let py = value.py();
    if let Ok(time) = value.cast::<PyDateTime>() {
        let utc = PyTzInfo::utc(py)?;
        return match time.get_tzinfo() {
            Some(zone) if !zone.is(utc) => {
                let moved = value.call_method1(intern!(py, "astimezone"), (utc,))?;
                Ok(us_of_utc(moved.cast()?))
            }
            _ => Ok(us_of_utc(time)),
        };
    }
    if value.is_instance_of::<PyString>() {
        let class = py.get_type::<PyDateTime>();
        if let Ok(parsed) = class.call_method1(intern!(py, "fromisoformat"), (value,)) {
            return datetime_to_us(&parsed, field);
        }
    }
    let message = format!("{field} must be a datetime, not {}", shown(value));
    Err(EventValidationError::new_err((message, field.to_owned())))
}

fn us_of_utc(time: &Bound<'_, PyDateTime>) -> i64 {
    clock::from_civil(
        time.get_year(),
        time.get_month(),
        time.get_day(),
        time.get_hour(),
        time.get_minute(),
        time.get_second(),
        time.get_microsecond(),
    )
}

/// An integer between the limits, None stays None; booleans are not integers here.
pub fn integer(value: &Bound<'_, PyAny>, field: &str, minimum: i64, maximum: i64) -> PyResult<i64> {
    let number = if value.is_instance_of::<pyo3::types::PyBool>() { None } else { value.extract::<i64>().ok() };
    match number {
        Some(number) if (minimum..=maximum).contains(&number) => Ok(number),
        _ => {
            let message = format!("{field} must be an integer from {minimum} to {maximum}, not {}", shown(value));
            Err(EventValidationError::new_err((message, field.to_owned())))
        }
    }
}

/// A short description of a value for messages: its type and the beginning of its `repr`.
pub fn shown(value: &Bound<'_, PyAny>) -> String {
    let class = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    match value.repr() {
        Ok(text) => {
            let text: String = text.to_string_lossy().chars().take(60).collect();
            format!("{class} {text}")
        }
        Err(_) => class,
    }
}
