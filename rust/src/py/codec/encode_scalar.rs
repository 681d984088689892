//! Python scalars to bytes, in either form.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyFloat, PyInt, PyString, PyTime, PyTimeAccess,
    PyTzInfoAccess,
};

use super::BIG_FLOAT;
use super::encode::{Encoder, is_exactly};
use super::fault::Res;
use super::sink::Sink;
use crate::core::calendar::Moment;
use crate::core::text;
use crate::py::{event, values};

/// Longest integer written as decimal digits.
const BIG_INT_BITS: u64 = 8192;

impl<'py, S: Sink> Encoder<'_, 'py, S> {
    pub fn text(&mut self, text: &Bound<'py, PyString>) -> Res<()> {
        if let Some(plain) = event::ascii(text).or_else(|| text.to_str().ok()) {
            self.sink.text(plain);
            return Ok(());
        }
        let bytes =
            text.call_method1(intern!(self.py, "encode"), (intern!(self.py, "utf-8"), &self.known.encode_error))?;
        self.sink.lone(bytes.cast::<PyBytes>()?.as_bytes());
        Ok(())
    }

    pub fn int(&mut self, value: &Bound<'py, PyAny>) -> Res<()> {
        if let Some(small) = event::small_int(value) {
            self.sink.int(small);
            return Ok(());
        }
        let bits: u64 = value.call_method0(intern!(self.py, "bit_length"))?.extract()?;
        let digits = if bits > BIG_INT_BITS {
            value.call_method1(intern!(self.py, "__format__"), (intern!(self.py, "#x"),))?.extract::<String>()?
        } else {
            value.str()?.to_str()?.to_owned()
        };
        self.sink.big(&digits);
        Ok(())
    }

    /// A float node takes integers too, as long as no database makes floats of them or the other way round.
    pub fn number(&mut self, value: &Bound<'py, PyAny>) -> Res<bool> {
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.float(number.value(), false);
            return Ok(true);
        }
        if !value.is_exact_instance_of::<PyInt>() {
            return Ok(false);
        }
        match value.extract::<i64>() {
            Ok(number) if number.unsigned_abs() < BIG_FLOAT as u64 => self.sink.int(number),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn float(&mut self, value: f64, tagged_if_big: bool) {
        if value.is_finite() {
            self.sink.float(value, tagged_if_big && value.abs() >= BIG_FLOAT);
        } else {
            let name = if value.is_nan() {
                "nan"
            } else if value > 0.0 {
                "inf"
            } else {
                "-inf"
            };
            self.sink.odd_float(value, name);
        }
    }

    pub fn uuid(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let bytes = values::uuid_to_bytes(value, "value")?;
        self.sink.uuid(&bytes, explicit);
        Ok(())
    }

    pub fn is_decimal(&self, value: &Bound<'py, PyAny>) -> bool {
        is_exactly(value, &self.known.decimal)
    }

    pub fn decimal(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let mut room = [0; 32];
        if let Some(short) = self.known.decimals.get(value)
            && let Some(plain) = text::plain_decimal(short.negative, short.coefficient, short.exponent, &mut room)
        {
            self.sink.decimal(plain, explicit);
            return Ok(());
        }
        self.sink.decimal(value.str()?.to_str()?.as_bytes(), explicit);
        Ok(())
    }

    pub fn bytes(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        self.sink.bytes(value.cast::<PyBytes>()?.as_bytes(), explicit);
        Ok(())
    }

    pub fn datetime(&mut self, value: &Bound<'py, PyDateTime>, explicit: bool) -> Res<()> {
        let zone = value.get_tzinfo();
        let utc = zone.as_ref().is_some_and(|zone| zone.is(&self.known.utc));
        if !value.get_fold() && (utc || zone.is_none()) {
            let moment = Moment {
                year: value.get_year(),
                month: value.get_month(),
                day: value.get_day(),
                hour: value.get_hour(),
                minute: value.get_minute(),
                second: value.get_second(),
                micro: value.get_microsecond(),
            };
            self.sink.datetime(moment, utc, explicit);
            return Ok(());
        }
        let text = self.known.format_moment.bind(self.py).call1((value,))?;
        self.sink.datetime_text(text.cast::<PyString>()?.to_str()?, explicit);
        Ok(())
    }

    pub fn date(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let date = value.cast::<PyDate>()?;
        let (year, month, day) = (date.get_year(), date.get_month(), date.get_day());
        self.sink.date(Moment { year, month, day, hour: 0, minute: 0, second: 0, micro: 0 }, explicit);
        Ok(())
    }

    pub fn time(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let time = value.cast::<PyTime>()?;
        if time.get_tzinfo().is_none() && !time.get_fold() {
            let (hour, minute, second) = (time.get_hour(), time.get_minute(), time.get_second());
            let micro = time.get_microsecond();
            self.sink.time(Moment { year: 1970, month: 1, day: 1, hour, minute, second, micro }, explicit);
            return Ok(());
        }
        let text = self.known.format_moment.bind(self.py).call1((value,))?;
        self.sink.time_text(text.cast::<PyString>()?.to_str()?, explicit);
        Ok(())
    }

    pub fn duration(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let delta = value.cast::<PyDelta>()?;
        let (days, seconds) = (i64::from(delta.get_days()), i64::from(delta.get_seconds()));
        self.sink.duration(days, seconds, i64::from(delta.get_microseconds()), explicit);
        Ok(())
    }
}
