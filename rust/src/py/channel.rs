//! The bounded channel for Python: the ways that need not wait. `buses/channel.py` adds those that do.
//!
//! Python objects are never dropped, and futures never resolved, under the lock.
use std::ffi::CStr;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList};

use super::awaitable::{Held, Method, add_method};
use super::shortcut::{Values, shortened};
use crate::core::channel::{Channel, Put};
use crate::errors::EventValidationError;

/// A future on which a task waits; compared by identity.
struct Waiter(Py<PyAny>);

impl Clone for Waiter {
    fn clone(&self) -> Self {
        Python::attach(|py| Self(self.0.clone_ref(py)))
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Waiter {
    /// Lets the task go on, unless it is being cancelled.
    fn wake(self, py: Python<'_>) -> PyResult<()> {
        let future = self.0.into_bound(py);
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }
}

/// Wakes all of them, also after one that fails (its event loop is closed); returns the first failure.
fn wake_all(py: Python<'_>, waiters: impl IntoIterator<Item = Waiter>) -> PyResult<()> {
    let mut result = Ok(());
    for waiter in waiters {
        result = result.and(waiter.wake(py));
    }
    result
}

/// Items on their way between tasks. Subclassed once, by `BoundedChannel`.
#[pyclass(frozen, subclass, module = "lexigram.events._core")]
pub struct ChannelBase {
    inner: Held<Channel<Py<PyAny>, Waiter>>,
}

#[pymethods]
impl ChannelBase {
    #[new]
    fn new(capacity: usize) -> PyResult<Self> {
        if capacity == 0 {
            return Err(EventValidationError::new_err(("capacity must be at least 1, not 0", "capacity")));
        }
        Ok(Self { inner: Held::new(Channel::new(capacity)) })
    }

    /// Takes up to `limit` of the oldest items.
    fn _take_many<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let (items, putters) = self.inner.lock(py).drain(limit);
        wake_all(py, putters)?;
        PyList::new(py, items)
    }

    /// Puts the future of a getter in line; False if there is something to take, or never will be.
    fn _enlist_getter(&self, py: Python<'_>, future: Py<PyAny>) -> bool {
        let mut inner = self.inner.lock(py);
        let waits = inner.is_empty() && !inner.is_closed();
        if waits {
            inner.wait_for_item(Waiter(future));
            return true;
        }
        drop(inner);
        false
    }

    /// Returns what a woken getter gets, as `get` or `get_many` would.
    fn _collect<'py>(slf: &Bound<'py, Self>, future: Py<PyAny>, limit: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let waiter = Waiter(future);
        let found = slf.get().inner.lock(slf.py()).collect(&waiter);
        match found {
            None => Err(closed(slf)?),
            Some(item) if limit == 0 => Ok(item.into_bound(py)),
            Some(item) => {
                let list = PyList::new(py, [item])?;
                list.call_method1(intern!(py, "extend"), (slf.get()._take_many(py, limit - 1)?,))?;
                Ok(list.into_any())
            }
        }
    }

    /// A getter is cancelled: the next one gets what was meant for it.
    fn _leave_getter(&self, py: Python<'_>, future: Py<PyAny>) -> PyResult<()> {
        let waiter = Waiter(future);
        let next = self.inner.lock(py).leave_items(&waiter);
        wake_all(py, next)
    }

    /// Puts the future of a putter in line.
    fn _enlist_putter(&self, py: Python<'_>, future: Py<PyAny>) {
        self.inner.lock(py).wait_for_room(Waiter(future));
    }

    /// A woken putter puts its item.
    fn _enter(slf: &Bound<'_, Self>, item: Py<PyAny>) -> PyResult<()> {
        let (put, next) = slf.get().inner.lock(slf.py()).enter(item);
        wake_all(slf.py(), next)?;
        match put {
            Put::Handed(getter) => getter.wake(slf.py()),
            Put::Closed(_) => Err(closed(slf)?),
            Put::Stored | Put::Full(_) => Ok(()),
        }
    }

    /// A putter is cancelled: the next one gets its room.
    fn _leave_putter(&self, py: Python<'_>, future: Py<PyAny>) -> PyResult<()> {
        let waiter = Waiter(future);
        let next = self.inner.lock(py).leave_room(&waiter);
        wake_all(py, next)
    }

    /// Accepts nothing more, and wakes everybody who waits.
    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        let woken = self.inner.lock(py).close();
        wake_all(py, woken)
    }

    #[getter]
    fn capacity(&self, py: Python<'_>) -> usize {
        self.inner.lock(py).capacity()
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        self.inner.lock(py).is_closed()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.inner.lock(py).len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector never starts while the lock is held, so it is free.
        if let Some(inner) = self.inner.try_lock() {
            let (mut items, mut waiters) = inner.contents();
            items.try_for_each(|item| visit.call(item))?;
            waiters.try_for_each(|waiter| visit.call(&waiter.0))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let emptied = self.inner.try_lock().map(|mut inner| {
            let capacity = inner.capacity();
            std::mem::replace(&mut *inner, Channel::new(capacity))
        });
        drop(emptied);
    }
}

impl ChannelBase {
    /// Puts an item; false if there is no room.
    #[inline(always)]
    fn put<'py>(channel: &Bound<'py, Self>, item: &Bound<'py, PyAny>) -> PyResult<bool> {
        let py = channel.py();
        let put = channel.get().inner.lock(py).put(item.clone().unbind());
        match put {
            Put::Stored => Ok(true),
            put => Python::attach(|_| match put {
                Put::Stored => Ok(true),
                Put::Handed(getter) => getter.wake(py).map(|()| true),
                Put::Full(_) => Ok(false),
                Put::Closed(_) => Err(closed(channel)?),
            }),
        }
    }

    /// Takes the oldest item; None if there is none.
    #[inline(always)]
    fn take<'py>(channel: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = channel.py();
        let taken = channel.get().inner.lock(py).get();
        let Some((item, putter)) = taken else { return Ok(None) };
        let item = item.into_bound(py);
        if let Some(putter) = putter {
            Python::attach(|_| putter.wake(py))?;
        }
        Ok(Some(item))
    }
}

/// The error for a closed channel, made by the Python class.
#[cold]
fn closed(channel: &Bound<'_, ChannelBase>) -> PyResult<PyErr> {
    Ok(PyErr::from_value(channel.call_method0(intern!(channel.py(), "_closed_error"))?))
}

/// `ChannelBase.put_nowait(item)`: puts an item and returns True, or returns False if there is no room.
struct PutNow;

impl Method<1> for PutNow {
    type Class = ChannelBase;
    const NAME: &'static CStr = c"put_nowait";
    const DOC: &'static CStr = c"put_nowait($self, item, /)\n--\n\n";

    #[inline]
    fn call<'py>(
        channel: &Bound<'py, ChannelBase>,
        [item]: [Borrowed<'_, 'py, PyAny>; 1],
    ) -> PyResult<Bound<'py, PyAny>> {
        let put = ChannelBase::put(channel, &item)?;
        Ok(PyBool::new(channel.py(), put).to_owned().into_any())
    }
}

/// `ChannelBase._take(default)`: takes the oldest item; returns `default` if there is none.
struct Take;

impl Method<1> for Take {
    type Class = ChannelBase;
    const NAME: &'static CStr = c"_take";
    const DOC: &'static CStr = c"_take($self, default, /)\n--\n\n";

    #[inline]
    fn call<'py>(
        channel: &Bound<'py, ChannelBase>,
        [default]: [Borrowed<'_, 'py, PyAny>; 1],
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(ChannelBase::take(channel)?.unwrap_or_else(|| default.to_owned()))
    }
}

/// The usual case of `BoundedChannel.put(item)`: there is room.
fn put_now<'py>(channel: &Bound<'py, PyAny>, values: &Values<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (Ok(channel), [Some(item), ..]) = (channel.cast::<ChannelBase>(), values) else { return Ok(None) };
    let put = ChannelBase::put(channel, item)?;
    Ok(put.then(|| channel.py().None().into_bound(channel.py())))
}

/// The usual case of `BoundedChannel.get()`: there is an item.
fn take_now<'py>(channel: &Bound<'py, PyAny>, _: &Values<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    channel.cast::<ChannelBase>().map_or(Ok(None), ChannelBase::take)
}

/// Gives `BoundedChannel.put` its shortcut.
#[pyfunction]
#[pyo3(signature = (function, /, *, always = false))]
fn put_shortcut(function: Bound<'_, PyAny>, always: bool) -> PyResult<Bound<'_, PyAny>> {
    shortened(function, put_now, always)
}

/// Gives `BoundedChannel.get` its shortcut.
#[pyfunction]
#[pyo3(signature = (function, /, *, always = false))]
fn get_shortcut(function: Bound<'_, PyAny>, always: bool) -> PyResult<Bound<'_, PyAny>> {
    shortened(function, take_now, always)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<ChannelBase>()?;
    m.add_function(wrap_pyfunction!(put_shortcut, m)?)?;
    m.add_function(wrap_pyfunction!(get_shortcut, m)?)?;
    add_method::<1, PutNow>(m.py())?;
    add_method::<1, Take>(m.py())
}
