//! Python objects that the codec compares with or calls, looked up once.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType, PyTzInfo};

use crate::py::numbers::Decimals;

pub struct Known {
    pub decimal: Py<PyType>,
    pub decimals: Decimals,
    /// `create_decimal` of a context that rounds nothing: one argument, no tuple, no white space allowed.
    pub make_decimal: Py<PyAny>,
    pub enumeration: Py<PyType>,
    pub utc: Py<PyTzInfo>,
    /// `dataclasses.MISSING`
    pub missing: Py<PyAny>,
    pub format_moment: Py<PyAny>,
    pub parse_datetime: Py<PyAny>,
    pub parse_time: Py<PyAny>,
    /// `shapes.record_for`
    pub record_for: Py<PyAny>,
    /// `rare.dismantle` and `rare.restore`: types that the core does not handle itself.
    pub dismantle: Py<PyAny>,
    pub restore: Py<PyAny>,
    pub dump_foreign: Py<PyAny>,
    pub load_foreign: Py<PyAny>,
    pub finish_model: Py<PyAny>,
    pub drop_field: Py<PyAny>,
    pub find_class: Py<PyAny>,
    pub unknown_event: Py<PyType>,
    pub encode_error: Py<PyString>,
}

pub fn get(py: Python<'_>) -> PyResult<&'static Known> {
    static KNOWN: PyOnceLock<Known> = PyOnceLock::new();
    KNOWN.get_or_try_init(py, || {
        let class =
            |module: &str, name: &str| PyResult::Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind());
        let timetext = py.import("lexigram.events.messages.timetext")?;
        let rare = py.import("lexigram.events.messages.rare")?;
        Ok(Known {
            decimals: Decimals::new(class("decimal", "Decimal")?.bind(py))?,
            decimal: class("decimal", "Decimal")?,
            make_decimal: rare.getattr("EXACT")?.getattr("create_decimal")?.unbind(),
            enumeration: class("enum", "Enum")?,
            utc: PyTzInfo::utc(py)?.to_owned().unbind(),
            missing: py.import("dataclasses")?.getattr("MISSING")?.unbind(),
            format_moment: timetext.getattr("format_moment")?.unbind(),
            parse_datetime: timetext.getattr("parse_datetime")?.unbind(),
            parse_time: timetext.getattr("parse_time")?.unbind(),
            record_for: py.import("lexigram.events.messages.shapes")?.getattr("record_for")?.unbind(),
            dismantle: rare.getattr("dismantle")?.unbind(),
            restore: rare.getattr("restore")?.unbind(),
            dump_foreign: rare.getattr("dump_foreign")?.unbind(),
            load_foreign: rare.getattr("load_foreign")?.unbind(),
            finish_model: rare.getattr("finish_model")?.unbind(),
            drop_field: rare.getattr("drop_field")?.unbind(),
            find_class: rare.getattr("find_class")?.unbind(),
            unknown_event: class("lexigram.events.messages.unknown", "UnknownEvent")?,
            encode_error: PyString::new(py, "surrogatepass").unbind(),
        })
    })
}
