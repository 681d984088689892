//! Enum classes: the members whose values are simple, with their written forms.
use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyString, PyType};

use super::node::token;
use super::sink::Sink;
use super::sink_binary::Binary;
use super::sink_json::Json;

pub struct Member {
    pub object: Py<PyAny>,
    pub json: Vec<u8>,
    pub binary: Vec<u8>,
}

pub struct EnumPlan {
    pub class: Py<PyType>,
    pub name: String,
    pub members: Vec<Member>,
    by_address: HashMap<usize, usize>,
    /// The tokens that members are written as.
    pub tokens: u8,
}

impl EnumPlan {
    pub fn new(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let mut plan = Self {
            class: class.clone().unbind(),
            name: class.name()?.to_string(),
            members: Vec::new(),
            by_address: HashMap::new(),
            tokens: 0,
        };
        let listed = py.get_type::<PyList>().call1((class,))?.cast_into::<PyList>()?;
        for object in listed.iter() {
            let value = object.getattr(intern!(py, "value"))?;
            let written = simple(&value)?;
            // A class may look its members up in its own way; then the slow path finds out.
            let found = class.call1((&value,)).is_ok_and(|found| found.is(&object));
            match written {
                Some((json, binary, token)) if found => {
                    plan.tokens |= token;
                    plan.by_address.insert(object.as_ptr() as usize, plan.members.len());
                    plan.members.push(Member { object: object.unbind(), json, binary });
                }
                _ => {}
            }
        }
        if plan.members.is_empty() || class.hasattr(intern!(py, "_flag_mask_"))? {
            plan.tokens |= token::INT;
        }
        Ok(plan)
    }

    pub fn member(&self, object: &Bound<'_, PyAny>) -> Option<&Member> {
        let address = object.as_ptr() as usize;
        if self.members.len() <= 8 {
            return self.members.iter().find(|member| member.object.as_ptr() as usize == address);
        }
        self.by_address.get(&address).and_then(|index| self.members.get(*index))
    }
}

/// The JSON form, the binary form and the token of a value.
type Written = (Vec<u8>, Vec<u8>, u8);

/// The written forms of a value that needs nothing but itself.
fn simple(value: &Bound<'_, PyAny>) -> PyResult<Option<Written>> {
    let (mut json, mut binary) = (Json::default(), Binary::default());
    let token = if let Ok(text) = value.cast_exact::<PyString>() {
        let Ok(text) = text.to_str() else { return Ok(None) };
        json.text(text);
        binary.text(text);
        token::TEXT
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        json.boolean(flag.is_true());
        binary.boolean(flag.is_true());
        token::BOOL
    } else if value.cast_exact::<PyInt>().is_ok() {
        let Ok(number) = value.extract::<i64>() else { return Ok(None) };
        json.int(number);
        binary.int(number);
        token::INT
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        let number = number.value();
        if !number.is_finite() || number.abs() >= super::BIG_FLOAT {
            return Ok(None);
        }
        json.float(number, false);
        binary.float(number, false);
        token::FLOAT
    } else {
        return Ok(None);
    };
    Ok(Some((json.0, binary.0, token)))
}
