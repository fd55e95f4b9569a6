//! The monitor.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use barograph_core::Error;
use barograph_engine::Monitor;
use barograph_engine::events::{Events, Marks, Value};
use barograph_engine::governor::{Detail, LAST};
use barograph_engine::labels::{key_of_integer, key_of_name};
use barograph_engine::monitor::{Config, Roles};
use barograph_engine::policy::Policy;
use barograph_engine::quality::Task;
use barograph_engine::schema::{Kind, Role, Schema};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString};
use serde::Serialize;

use crate::border::for_each_batch;
use crate::errors::{Raise, raised};
use crate::governed::Governed;
use crate::profiles::lock;
use crate::references::PyReference;
use crate::sketches::PyExponentialHistogram;

/// Events gathered before they are handed on.
const GATHERED: usize = 1024;

fn json<T: Serialize + ?Sized>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| raised(&Error::invalid(error.to_string())))
}

/// A field that single events are looked up for.
struct Field {
    name: Py<PyString>,
    kind: Kind,
    role: Role,
}

/// Single events on their way, and what was odd about them.
struct Gathering {
    /// By how many times they were halved.
    events: Vec<(u32, Events)>,
    /// Seconds, time, and whether it failed, of calls apart from events.
    calls: Vec<(f64, i64, Option<bool>)>,
    unknown: u64,
    mistyped: u64,
}

/// Threads gather apart, as far as there are places.
const PLACES: usize = 16;
/// A thread hands its events on when it has gathered enough, but waits for nobody until it has this many times as much.
const PATIENCE: usize = 64;

#[pyclass(name = "Monitor", module = "barograph._barograph", frozen, weakref)]
struct PyMonitor {
    /// Locked before any gathering, never after one.
    inner: Mutex<Monitor>,
    gathering: [Mutex<Gathering>; PLACES],
    schema: Schema,
    fields: Vec<Field>,
    /// A score is the reference's column of that role only where labels are judged by one.
    binary: bool,
    /// Present if it has a budget of processor time or bytes.
    governed: Option<Governed>,
}

impl Gathering {
    /// The events of so many halvings.
    fn of(&mut self, halvings: u32, schema: &Schema) -> &mut Events {
        let at = self.events.iter().position(|(known, _)| *known == halvings).unwrap_or_else(|| {
            self.events.push((halvings, Events::new(schema)));
            self.events.len() - 1
        });
        &mut self.events[at].1
    }

    fn len(&self) -> usize {
        self.events.iter().map(|(_, events)| events.len()).sum()
    }
}

/// The place of this thread.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
    MINE.with(|mine| *mine)
}

/// A lock that is waited for without keeping other Python threads from running.
fn held<'a, T>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    mutex.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

impl PyMonitor {
    fn around(py: Python<'_>, monitor: Monitor) -> Self {
        let (schema, binary) = (monitor.reference().schema(), monitor.task() == Task::Binary);
        let fields = schema.columns.iter();
        let fields =
            fields.map(|column| Field { name: PyString::new(py, &column.name).unbind(), kind: column.kind, role: column.role }).collect();
        let gathering = std::array::from_fn(|_| Mutex::new(Gathering { events: Vec::new(), calls: Vec::new(), unknown: 0, mistyped: 0 }));
        let governed = Governed::new(monitor.policy().budget.limits());
        Self { inner: Mutex::new(monitor), gathering, schema, fields, binary, governed }
    }

    /// Hands on what was gathered if it is enough; while a window closes nobody waits for that.
    fn hand_on(&self, py: Python<'_>, len: usize) -> PyResult<()> {
        let free = || !matches!(self.inner.try_lock(), Err(TryLockError::WouldBlock));
        if len >= GATHERED * PATIENCE || len >= GATHERED && free() {
            match &self.governed {
                Some(governed) => {
                    governed.measured(|| self.handed_on(py).map(drop))?;
                    governed.step();
                }
                None => drop(self.handed_on(py)?),
            }
        }
        Ok(())
    }

    /// The monitor with everything in it: whoever looks at it has to see what was gathered.
    fn current(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Monitor>> {
        let mut monitor = self.handed_on(py)?;
        monitor.settle().raise()?;
        if let Some(governed) = &self.governed {
            follow(governed, &mut monitor);
        }
        Ok(monitor)
    }

    /// Hands on what was gathered.
    fn handed_on(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Monitor>> {
        let mut monitor = held(py, &self.inner);
        for gathering in &self.gathering {
            let mut gathering = held(py, gathering);
            for (seconds, time, failed) in std::mem::take(&mut gathering.calls) {
                monitor.call(seconds, time, failed).raise()?;
            }
            let mut taken = Vec::new();
            for (halvings, events) in gathering.events.iter_mut().filter(|(_, events)| !events.is_empty()) {
                let (batch, marks) = events.take().raise()?;
                taken.push((batch, Marks { halvings: *halvings, ..marks }));
            }
            drop(gathering);
            for (batch, marks) in taken {
                monitor.add_gathered(batch, marks).raise()?;
            }
        }
        Ok(monitor)
    }
}

/// Tells the governor what the monitor holds, and keeps the detail that it says.
fn follow(governed: &Governed, monitor: &mut Monitor) {
    governed.holds(monitor.bytes());
    governed.step();
    if monitor.detail() != governed.detail() {
        monitor.keep(governed.detail());
    }
}

/// A field as its column holds it; `None` for a value of another kind.
fn value<'a>(kind: Kind, item: &'a Bound<'_, PyAny>) -> Option<Value<'a>> {
    if item.is_none() {
        return Some(Value::Null);
    }
    match kind {
        Kind::Number => match item.cast_exact::<PyFloat>() {
            Ok(float) => Some(Value::Number(float.value())),
            Err(_) if item.is_instance_of::<PyString>() => None,
            Err(_) => item.extract().ok().map(Value::Number),
        },
        Kind::Category => item.cast::<PyString>().ok()?.to_str().ok().map(Value::Name),
        Kind::Boolean => item.cast::<PyBool>().ok().map(|flag| Value::Flag(flag.is_true())),
        Kind::Time => item.cast::<PyInt>().ok()?.extract().ok().map(Value::Time),
        Kind::Text | Kind::Embedding | Kind::Unsupported => Some(Value::Present),
    }
}

fn key(id: &Bound<'_, PyAny>) -> PyResult<Option<u128>> {
    if id.is_none() {
        return Ok(None);
    }
    if let Ok(text) = id.cast::<PyString>() {
        return Ok(Some(key_of_name(text.to_str()?)));
    }
    id.extract::<i128>().map(|id| Some(key_of_integer(id))).map_err(|_| {
        let kind = id.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
        raised(&Error::invalid(format!("`id` must be a whole number or text, got {kind}")))
    })
}

#[pymethods]
impl PyMonitor {
    /// `policy` is JSON.
    #[new]
    fn new(py: Python<'_>, name: String, policy: &str, privacy: Option<String>, reference: &PyReference) -> PyResult<Self> {
        let config = Config { name, policy: Policy::from_json(policy).raise()?, privacy };
        Ok(Self::around(py, Monitor::new(config, reference.inner.clone()).raise()?))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let monitor = py.detach(|| Monitor::from_bytes(data)).raise()?;
        Ok(Self::around(py, monitor))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let monitor = self.current(py)?.clone();
        let bytes = py.detach(|| monitor.to_bytes()).raise()?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> String {
        held(py, &self.inner).name().to_owned()
    }

    /// Length of a window in nanoseconds.
    #[getter]
    fn window(&self, py: Python<'_>) -> i64 {
        held(py, &self.inner).policy().window.0
    }

    #[getter]
    fn task(&self, py: Python<'_>) -> &'static str {
        match held(py, &self.inner).task() {
            Task::Binary => "binary",
            Task::Multiclass => "multiclass",
            Task::Regression => "regression",
        }
    }

    #[getter]
    fn privacy(&self, py: Python<'_>) -> Option<String> {
        held(py, &self.inner).privacy().map(str::to_owned)
    }

    /// What it promises about false alerts, in words.
    fn promise(&self, py: Python<'_>) -> String {
        held(py, &self.inner).promise()
    }

    /// What its user states, as JSON.
    fn policy(&self, py: Python<'_>) -> PyResult<String> {
        json(held(py, &self.inner).policy())
    }

    #[getter]
    fn reference(&self, py: Python<'_>) -> PyReference {
        PyReference { inner: held(py, &self.inner).reference().clone() }
    }

    /// `roles` is JSON: time, id, score, latency, error.
    fn observe(&self, py: Python<'_>, frame: &Bound<'_, PyAny>, roles: &str, now: i64) -> PyResult<()> {
        let roles: Roles = serde_json::from_str(roles).map_err(|error| raised(&Error::invalid(error.to_string())))?;
        drop(self.handed_on(py)?);
        let Some(governed) = &self.governed else {
            return for_each_batch(frame, |batch| lock(&self.inner).observe(batch, &roles, now));
        };
        for_each_batch(frame, |batch| {
            let (kept, halvings) = governed.thinned(batch)?;
            let mut monitor = lock(&self.inner);
            monitor.observe_sampled(&kept, &roles, now, halvings)?;
            follow(governed, &mut monitor);
            Ok(())
        })
    }

    /// Whether it has a budget.
    #[getter]
    fn governed(&self) -> bool {
        self.governed.is_some()
    }

    /// Throws the coins of a single event: how many times it was halved, -1 if it is left out.
    fn admit(&self) -> i32 {
        self.governed.as_ref().map_or(0, |governed| governed.admit().map_or(-1, |halvings| halvings as i32))
    }

    /// So many nanoseconds of processor time were taken outside of here.
    fn spend(&self, nanoseconds: u64) {
        if let Some(governed) = &self.governed {
            governed.spend(nanoseconds);
        }
    }

    /// With `on` no call counts; without it, what a call costs even if its event is left out.
    fn rehearse(&self, on: bool, seconds: f64) {
        if let Some(governed) = &self.governed {
            governed.rehearse(on, seconds);
        }
    }

    /// Samples at this depth with the coins of this seed, whatever it costs: for tests and measurements.
    fn pin(&self, depth: f64, seed: u64) {
        if let Some(governed) = &self.governed {
            governed.pin(depth, seed);
        }
    }

    /// Keeps this much detail from now on, 0 for all of it: what the governor does when bytes are short.
    fn keep(&self, py: Python<'_>, level: u8) -> PyResult<()> {
        self.current(py)?.keep(Detail { level: level.min(LAST) });
        if let Some(governed) = &self.governed {
            governed.set_level(level.min(LAST));
        }
        Ok(())
    }

    /// Bytes that were written to a file, and bytes that were handed out.
    #[pyo3(signature = (disk, wire))]
    fn wrote(&self, disk: Option<u64>, wire: u64) {
        if let Some(governed) = &self.governed {
            governed.wrote(disk, wire);
        }
    }

    /// What monitoring costs and what was given up for it, as JSON; None without a budget.
    fn cost(&self, py: Python<'_>) -> PyResult<Option<String>> {
        drop(self.current(py)?);
        self.governed.as_ref().map(|governed| json(&governed.told())).transpose()
    }

    /// One event; times in nanoseconds. A value of another kind than its column counts as null. `halvings`: what `admit` gave.
    #[pyo3(signature = (row, time, id, prediction, score, chances, weight, latency, error, halvings=0))]
    #[allow(clippy::too_many_arguments)] // one per keyword of `observe`; a tuple would be built for every event
    fn observe_one(
        &self,
        row: &Bound<'_, PyDict>,
        time: i64,
        id: &Bound<'_, PyAny>,
        prediction: &Bound<'_, PyAny>,
        score: Option<f64>,
        chances: Option<Vec<f32>>,
        weight: Option<f64>,
        latency: Option<f64>,
        error: bool,
        halvings: u32,
    ) -> PyResult<()> {
        let py = row.py();
        let id = key(id)?;
        let mut gathering = held(py, &self.gathering[place()]);
        let (mut found, mut mistyped) = (0, 0);
        let events = gathering.of(halvings, &self.schema);
        events.begin(time, id, (score, chances.map(Vec::into_boxed_slice).unwrap_or_default(), weight), latency, error);
        for (column, field) in self.fields.iter().enumerate() {
            let mut item = row.get_item(field.name.bind(py)).ok().flatten();
            found += usize::from(item.is_some());
            if item.is_none() {
                item = match field.role {
                    Role::Prediction => Some(prediction.clone()),
                    Role::Score if self.binary => score.map(|score| PyFloat::new(py, score).into_any()),
                    _ => None,
                };
            }
            let known = item.as_ref().map_or(Some(Value::Null), |item| value(field.kind, item));
            if known.is_none() {
                mistyped += 1;
            }
            events.field(column, known.unwrap_or(Value::Null));
        }
        gathering.unknown += row.len().saturating_sub(found) as u64;
        gathering.mistyped += mistyped;
        let len = gathering.len();
        drop(gathering);
        if let Some(governed) = &self.governed {
            governed.admitted();
        }
        self.hand_on(py, len)
    }

    /// One call's latency; with `failed` a request of its own, without it one of events given apart.
    #[pyo3(signature = (seconds, time, failed))]
    fn call(&self, py: Python<'_>, seconds: f64, time: i64, failed: Option<bool>) -> PyResult<()> {
        let mut gathering = held(py, &self.gathering[place()]);
        if let Some(governed) = &self.governed {
            governed.called();
        }
        gathering.calls.push((seconds, time, failed));
        let len = gathering.calls.len();
        drop(gathering);
        self.hand_on(py, len)
    }

    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        let theirs = other.current(py)?.clone();
        let mut mine = self.current(py)?;
        mine.merge(&theirs).raise()
    }

    fn version(&self, py: Python<'_>, version: &str, time: i64) -> PyResult<()> {
        self.handed_on(py)?.version(version, time);
        Ok(())
    }

    fn deploy(&self, py: Python<'_>, version: &str, time: i64, until: i64) -> PyResult<()> {
        self.current(py)?.deploy(version, time, until);
        Ok(())
    }

    #[pyo3(signature = (frame, id, label, now, time=None))]
    fn label(&self, py: Python<'_>, frame: &Bound<'_, PyAny>, id: &str, label: &str, now: i64, time: Option<&str>) -> PyResult<()> {
        drop(self.handed_on(py)?);
        for_each_batch(frame, |batch| lock(&self.inner).label(batch, id, label, time, now))
    }

    fn tick(&self, py: Python<'_>, now: i64) -> PyResult<()> {
        drop(self.handed_on(py)?);
        if let Some(governed) = &self.governed {
            follow(governed, &mut held(py, &self.inner));
        }
        py.detach(|| lock(&self.inner).tick(now)).raise()
    }

    /// JSON, or None without events.
    fn summary(&self, py: Python<'_>, start: i64, end: i64) -> PyResult<Option<String>> {
        drop(self.current(py)?);
        let summary = py.detach(|| lock(&self.inner).summary(start, end)).raise()?;
        summary.as_ref().map(json).transpose()
    }

    fn history(&self, py: Python<'_>, since: i64) -> PyResult<String> {
        let monitor = held(py, &self.inner);
        json(&monitor.history(since).collect::<Vec<_>>())
    }

    /// Start and end of the window that closed last.
    fn last_window(&self, py: Python<'_>) -> Option<(i64, i64)> {
        held(py, &self.inner).last_window()
    }

    /// Name and severity, as JSON.
    fn open_alerts(&self, py: Python<'_>) -> PyResult<String> {
        json(&held(py, &self.inner).open_alerts())
    }

    /// Changes of alerts, without the first ones.
    fn alerts(&self, py: Python<'_>, without: usize) -> PyResult<String> {
        json(held(py, &self.inner).alerts().get(without..).unwrap_or_default())
    }

    fn latencies(&self, py: Python<'_>, start: i64, end: i64) -> PyResult<Option<PyExponentialHistogram>> {
        let found = self.current(py)?.latencies(start, end).raise()?;
        Ok(found.map(PyExponentialHistogram::around))
    }

    /// Latencies since the monitor began.
    fn lifetime(&self, py: Python<'_>) -> PyResult<PyExponentialHistogram> {
        Ok(PyExponentialHistogram::around(self.current(py)?.lifetime().clone()))
    }

    fn counts(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, u64)>> {
        let mut counts = self.current(py)?.counts().to_vec();
        let odd = self.gathering.iter().map(|gathering| held(py, gathering)).map(|gathering| (gathering.unknown, gathering.mistyped));
        let (unknown, mistyped) = odd.fold((0, 0), |sum, odd| (sum.0 + odd.0, sum.1 + odd.1));
        counts.extend([("unknown_fields", unknown), ("mistyped_fields", mistyped)]);
        if let Some(governed) = &self.governed {
            counts.push(("left_out", governed.left_out()));
        }
        Ok(counts)
    }
}

/// A policy of JSON, checked, as JSON with all its keys.
#[pyfunction]
fn policy_from_json(text: &str) -> PyResult<String> {
    let policy = Policy::from_json(text).raise()?;
    policy.check().raise()?;
    json(&policy)
}

/// The policy of a model in a TOML file, as JSON. `source` names the file in errors.
#[pyfunction]
fn policy_from_toml(text: &str, model: &str, source: &str) -> PyResult<String> {
    json(&Policy::from_toml(text, model, source).raise()?)
}

/// The models of a TOML file, and what the policy of each promises; one without a name where the file is a policy.
#[pyfunction]
fn policies_of_toml(text: &str, source: &str) -> PyResult<Vec<(String, String)>> {
    let policies = Policy::all_from_toml(text, source).raise()?;
    Ok(policies.into_iter().map(|(model, policy)| (model, policy.promise(&[]))).collect())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(policy_from_json, module)?)?;
    module.add_function(wrap_pyfunction!(policy_from_toml, module)?)?;
    module.add_function(wrap_pyfunction!(policies_of_toml, module)?)?;
    module.add_class::<PyMonitor>()
}
