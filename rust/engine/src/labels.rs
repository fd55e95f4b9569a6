//! Labels that come later than their events, or earlier, or never: joined by id.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use barograph_core::codec::{Reader, Writer};
use barograph_core::hash::murmur3_x64_128;
use barograph_core::{Error, Result};
use hashbrown::{HashMap, HashSet};

use crate::frame;
use crate::ledger::Choice;
use crate::monitor::MOST_HALVINGS;

/// Events that wait for their label and labels that wait for their event, each.
const MOST_WAITING: usize = 1 << 22;

/// Ids that may be in memory beside a shelf: more are there only while the shelf cannot be written to.
const MOST_OVERLAID: usize = 1 << 19;

/// The largest weight of an event.
pub const MOST_WEIGHT: f64 = 1e12;

/// What a label finds of its event.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Start of the event's tile.
    pub tile: i64,
    /// Its score, if it had one; of several classes the position of the one predicted.
    pub score: Option<f64>,
    /// Of several classes the probability of each, if it had them.
    pub chances: Box<[f32]>,
    /// How much it counts in metrics.
    pub weight: f64,
    /// It stands for `2^halvings` events.
    pub halvings: u8,
}

/// A label, and when it arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// 0 or 1, the position of a class, or a number.
    pub value: f64,
    /// Nanoseconds since the epoch.
    pub time: i64,
}

/// A prediction whose label changed: the one that counted, and the one that counts now.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Change {
    pub prediction: Prediction,
    pub before: Option<f64>,
    pub now: Option<f64>,
    /// When the label arrived that counts now; without one, the label that counted.
    pub arrived: i64,
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Its event, and the label that counts.
    Event(Prediction, Option<Label>),
    /// A label that waits for its event.
    Waiting(Label),
}

/// Where ids are kept that are not in memory.
pub trait Shelf: Send + Sync + Debug {
    /// What was last written of an id.
    ///
    /// # Errors
    /// When it cannot be read.
    fn find(&self, id: u128) -> Result<Option<Known>>;

    /// Labels on it that wait for their event.
    fn waiting(&self) -> u64;
}

/// Ids in memory: all of them, or beside a shelf those that changed since it was last written to.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    events: HashMap<u128, (Prediction, Option<Label>)>,
    labels: HashMap<u128, Label>,
    /// Those that may be beneath as well: on the shelf, or in the overlay that is being written to it.
    beneath: HashSet<u128>,
    /// Waiting labels that came, less those beneath that found their event.
    waiting: i64,
}

impl Overlay {
    /// Ids in it.
    pub fn len(&self) -> usize {
        self.events.len() + self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the shelf may know the id already.
    pub fn is_beneath(&self, id: u128) -> bool {
        self.beneath.contains(&id)
    }

    /// Events with the label that counts, in no order.
    pub fn events(&self) -> impl Iterator<Item = (u128, &Prediction, Option<Label>)> {
        self.events.iter().map(|(id, (prediction, label))| (*id, prediction, *label))
    }

    /// Labels that wait for their event, in no order.
    pub fn labels(&self) -> impl Iterator<Item = (u128, Label)> {
        self.labels.iter().map(|(id, label)| (*id, *label))
    }

    fn find(&self, id: u128) -> Option<Known> {
        let event = self.events.get(&id).map(|(prediction, label)| Known::Event(prediction.clone(), *label));
        event.or_else(|| self.labels.get(&id).copied().map(Known::Waiting))
    }

    fn ids(&self) -> impl Iterator<Item = u128> {
        self.events.keys().chain(self.labels.keys()).copied()
    }

    fn contains(&self, id: u128) -> bool {
        self.events.contains_key(&id) || self.labels.contains_key(&id)
    }

    /// Puts what came later over it.
    fn cover(&mut self, later: Self) {
        // It may have been written meanwhile.
        self.beneath = self.ids().collect();
        for id in later.events.keys() {
            self.labels.remove(id);
        }
        self.events.extend(later.events);
        self.labels.extend(later.labels);
        self.beneath.extend(later.beneath);
        self.waiting += later.waiting;
    }
}

/// The join. Of several events of one id the first counts; which of several labels counts says the [`Choice`]. Labelled events stay, for
/// corrections, as long as there is room; a label whose event is not known waits for it.
///
/// With a [`Shelf`] memory holds only what the shelf does not have yet: [`LabelJoin::freeze`] sets that aside to be written,
/// [`LabelJoin::shelved`] lets go of it. What is joined, and how, is the same as without one.
#[derive(Clone, Debug, Default)]
pub struct LabelJoin {
    choice: Choice,
    /// Labelled events that are kept.
    keep: usize,
    live: Overlay,
    /// What is being written to the shelf.
    frozen: Option<Arc<Overlay>>,
    shelf: Option<Arc<dyn Shelf>>,
    /// Labels that waited on the shelf when it was last written to.
    waiting: u64,
    /// Without a shelf, arrival times of the labels of labelled events, and their ids: the first are the first to go.
    labelled: BTreeSet<(i64, u128)>,
    /// Events or labels given up because too many waited, or because the shelf could not be read.
    pub dropped: u64,
    /// Later events of a known id.
    pub duplicates: u64,
    /// Labels that took the place of another one, or came to one that stayed.
    pub superseded: u64,
}

impl LabelJoin {
    /// Nothing yet; labelled events may take `memory` bytes, about.
    pub fn new(choice: Choice, memory: usize) -> Self {
        Self { choice, keep: memory / 128, ..Self::default() }
    }

    /// Goes on beside a shelf. What is in memory is what the shelf may not have yet; nothing is given up for want of memory any more.
    pub fn lean_on(&mut self, shelf: Arc<dyn Shelf>) {
        self.labelled.clear();
        self.live.beneath = self.live.ids().collect();
        self.live.waiting = self.live.labels.len() as i64;
        self.waiting = shelf.waiting();
        self.shelf = Some(shelf);
    }

    /// Whether there is a shelf.
    pub fn leans(&self) -> bool {
        self.shelf.is_some()
    }

    /// Sets aside what has to be written to the shelf. Look-ups still see it; what comes from now on is kept apart.
    /// What was set aside before and not written is part of it. Without a shelf there is nothing to set aside.
    pub fn freeze(&mut self) -> Arc<Overlay> {
        if self.shelf.is_none() {
            return Arc::default();
        }
        let live = std::mem::take(&mut self.live);
        let mut frozen = self.frozen.take().unwrap_or_default();
        if frozen.is_empty() {
            frozen = Arc::new(live);
        } else {
            Arc::make_mut(&mut frozen).cover(live);
        }
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// The shelf has what `written` holds: it need not be in memory any longer. Nothing happens if more was set aside since.
    pub fn shelved(&mut self, written: &Arc<Overlay>) {
        if self.frozen.as_ref().is_some_and(|frozen| Arc::ptr_eq(frozen, written)) {
            self.frozen = None;
            self.waiting = self.shelf.as_ref().map_or(0, |shelf| shelf.waiting());
        }
    }

    /// Ids in memory.
    pub fn overlay_len(&self) -> usize {
        self.live.len() + self.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    /// Forgets an id, as far as it is in memory. Erase it from the shelf after that, and after what is being written there is written.
    pub fn erase(&mut self, id: u128) {
        let frozen = self.frozen.as_mut().filter(|frozen| frozen.contains(id)).map(Arc::make_mut);
        for overlay in [Some(&mut self.live), frozen].into_iter().flatten() {
            let label = overlay.events.remove(&id).and_then(|(_, label)| label);
            label.map(|label| self.labelled.remove(&(label.time, id)));
            overlay.waiting -= i64::from(overlay.labels.remove(&id).is_some());
        }
    }

    /// What is known of an id beneath the live overlay.
    fn beneath(&self, id: u128) -> Result<Option<Known>> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.find(id));
        match &self.shelf {
            Some(shelf) if frozen.is_none() => shelf.find(id),
            _ => Ok(frozen),
        }
    }

    /// An event has its label; without a shelf the first labelled ones go when there are too many.
    fn done(&mut self, id: u128, label: Label) {
        if self.shelf.is_some() {
            return;
        }
        self.labelled.insert((label.time, id));
        while self.labelled.len() > self.keep.min(MOST_WAITING) {
            self.labelled.pop_first().map(|(_, id)| self.live.events.remove(&id));
        }
    }

    /// Whether another event, or another label, may wait.
    fn has_room(&self, waiting: usize) -> bool {
        if self.shelf.is_some() { self.overlay_len() < MOST_OVERLAID } else { waiting < MOST_WAITING }
    }

    /// An event; its label if that came first.
    pub fn event(&mut self, id: u128, prediction: Prediction) -> Option<Change> {
        if self.live.events.contains_key(&id) {
            self.duplicates += 1;
            return None;
        }
        let mut label = self.live.labels.remove(&id);
        if label.is_none() {
            match self.beneath(id) {
                Ok(None) => {}
                Ok(Some(Known::Waiting(waiting))) => {
                    self.live.beneath.insert(id);
                    label = Some(waiting);
                }
                Ok(Some(Known::Event(..))) => {
                    self.duplicates += 1;
                    return None;
                }
                Err(_) => {
                    self.dropped += 1;
                    return None;
                }
            }
        }
        let change =
            label.map(|label| Change { prediction: prediction.clone(), before: None, now: Some(label.value), arrived: label.time });
        if let Some(label) = label {
            self.live.waiting -= 1;
            self.live.events.insert(id, (prediction, Some(label)));
            self.done(id, label);
        } else if self.has_room(self.live.events.len() - self.labelled.len()) {
            self.live.events.insert(id, (prediction, label));
        } else {
            self.dropped += 1;
        }
        change
    }

    /// A label; what it changes, if its event came first.
    pub fn label(&mut self, id: u128, label: Label) -> Option<Change> {
        let beneath = if self.live.contains(id) { Ok(None) } else { self.beneath(id) };
        let Ok(beneath) = beneath else {
            self.dropped += 1;
            return None;
        };
        let known = match &beneath {
            Some(Known::Event(_, known)) => *known,
            Some(Known::Waiting(known)) => Some(*known),
            None => {
                let known = self.live.events.get(&id).and_then(|(_, known)| *known);
                known.or_else(|| self.live.labels.get(&id).copied())
            }
        };
        if let Some(known) = known {
            self.superseded += 1;
            if !self.choice.prefers(label.time, known.time) {
                return None;
            }
        }
        if let Some(beneath) = beneath {
            if !self.has_room(0) {
                self.dropped += 1;
                return None;
            }
            self.live.beneath.insert(id);
            match beneath {
                Known::Event(prediction, known) => drop(self.live.events.insert(id, (prediction, known))),
                Known::Waiting(known) => drop(self.live.labels.insert(id, known)),
            }
        }
        if let Some((prediction, to)) = self.live.events.get_mut(&id) {
            *to = Some(label);
            let before = known.map(|known| known.value);
            let change = (before != Some(label.value)).then(|| Change {
                prediction: prediction.clone(),
                before,
                now: Some(label.value),
                arrived: label.time,
            });
            if let Some(known) = known {
                self.labelled.remove(&(known.time, id));
            }
            self.done(id, label);
            return change;
        }
        if known.is_some() || self.has_room(self.live.labels.len()) {
            self.live.waiting += i64::from(known.is_none());
            self.live.labels.insert(id, label);
        } else {
            self.dropped += 1;
        }
        None
    }

    /// Events in memory, ids in order.
    fn events(&self) -> Vec<(u128, &Prediction, Option<Label>)> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.events()).filter(|(id, ..)| !self.live.contains(*id));
        let mut events: Vec<_> = self.live.events().chain(frozen).collect();
        events.sort_unstable_by_key(|(id, ..)| *id);
        events
    }

    /// Waiting labels in memory, ids in order.
    fn labels(&self) -> Vec<(u128, Label)> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.labels()).filter(|(id, _)| !self.live.contains(*id));
        let mut labels: Vec<_> = self.live.labels().chain(frozen).collect();
        labels.sort_unstable_by_key(|(id, _)| *id);
        labels
    }

    /// Takes another's events and labels, those that it has in memory. The changes are those beyond what each had joined by itself.
    pub fn merge(&mut self, other: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, prediction, label) in other.events() {
            // What it had joined comes in anew, by the rules here.
            if let Some(label) = label {
                changes.push(Change { prediction: prediction.clone(), before: Some(label.value), now: None, arrived: label.time });
            }
            changes.extend(self.event(id, prediction.clone()));
            changes.extend(label.and_then(|label| self.label(id, label)));
        }
        changes.extend(other.labels().into_iter().filter_map(|(id, label)| self.label(id, label)));
        self.dropped += other.dropped;
        self.duplicates += other.duplicates;
        self.superseded += other.superseded;
        changes
    }

    /// Appends the join to a snapshot, ids in order; beside a shelf what is not known to be on it.
    pub fn encode(&self, writer: &mut Writer) {
        let id = |writer: &mut Writer, id: u128| {
            writer.u64((id >> 64) as u64);
            writer.u64(id as u64);
        };
        let when = |writer: &mut Writer, label: &Label| {
            writer.f64(label.value);
            writer.i64(label.time);
        };
        let events = self.events();
        writer.len(events.len());
        for (key, prediction, label) in events {
            id(writer, key);
            writer.i64(prediction.tile);
            writer.option_f64(prediction.score);
            writer.f64(prediction.weight);
            writer.u8(prediction.halvings);
            writer.len(prediction.chances.len());
            prediction.chances.iter().for_each(|chance| writer.f64(f64::from(*chance)));
            writer.bool(label.is_some());
            label.iter().for_each(|label| when(writer, label));
        }
        let labels = self.labels();
        writer.len(labels.len());
        for (key, label) in labels {
            id(writer, key);
            when(writer, &label);
        }
        [self.dropped, self.duplicates, self.superseded].into_iter().for_each(|count| writer.u64(count));
    }

    /// Reads a join back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>, choice: Choice, memory: usize) -> Result<Self> {
        let id = |reader: &mut Reader<'_>| -> Result<u128> { Ok(u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?)) };
        let when = |reader: &mut Reader<'_>| -> Result<Label> {
            let label = Label { value: reader.f64()?, time: reader.i64()? };
            if label.value.is_nan() { Err(Error::decode("a label of the snapshot is not a number")) } else { Ok(label) }
        };
        let mut out = Self::new(choice, memory);
        for _ in 0..reader.len(5)? {
            let key = id(reader)?;
            let (tile, score, weight, halvings) = (reader.i64()?, reader.option_finite()?, reader.f64()?, reader.u8()?);
            if !(0.0..=MOST_WEIGHT).contains(&weight) || u32::from(halvings) > MOST_HALVINGS {
                return Err(Error::decode("a weight of the snapshot is out of range"));
            }
            let chances = (0..reader.len(8)?).map(|_| Ok(reader.f64()? as f32)).collect::<Result<Box<[f32]>>>()?;
            let label = if reader.bool()? { Some(when(reader)?) } else { None };
            out.labelled.extend(label.map(|label| (label.time, key)));
            out.live.events.insert(key, (Prediction { tile, score, chances, weight, halvings }, label));
        }
        for _ in 0..reader.len(11)? {
            let key = id(reader)?;
            out.live.labels.insert(key, when(reader)?);
        }
        (out.dropped, out.duplicates, out.superseded) = (reader.count()?, reader.count()?, reader.count()?);
        Ok(out)
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        128 * self.overlay_len()
    }

    /// Labels without an event so far.
    pub fn orphans(&self) -> usize {
        let beneath = self.waiting as i64 + self.frozen.as_ref().map_or(0, |frozen| frozen.waiting);
        if self.shelf.is_some() { (beneath + self.live.waiting).max(0) as usize } else { self.live.labels.len() }
    }
}

/// The key of an id that is text.
pub fn key_of_name(id: &str) -> u128 {
    let (high, low) = murmur3_x64_128(id.as_bytes(), 0);
    u128::from(high) << 64 | u128::from(low)
}

/// The key of an id that is a whole number.
pub fn key_of_integer(id: i128) -> u128 {
    id as u128
}

/// A key per row; `None` for nulls. Whole numbers are themselves, names their 128-bit hash; 16 bytes are a key already.
///
/// # Errors
/// `InvalidArgument` for a column that is neither.
pub fn keys(name: &str, array: &dyn Array) -> Result<Vec<Option<u128>>> {
    let text = key_of_name;
    let mut out = vec![None; array.len()];
    if array.data_type().is_integer() {
        for (row, key) in out.iter_mut().enumerate().filter(|(row, _)| array.is_valid(*row)) {
            // Through the formatter of no type at all: integers of any width end up as one i128.
            *key = integer(array, row).map(key_of_integer);
        }
        return Ok(out);
    }
    if let Some(strings) = array.as_string_opt::<i32>() {
        strings.iter().zip(&mut out).for_each(|(value, key)| *key = value.map(text));
    } else if let Some(strings) = array.as_string_opt::<i64>() {
        strings.iter().zip(&mut out).for_each(|(value, key)| *key = value.map(text));
    } else if let Some(strings) = array.as_string_view_opt() {
        strings.iter().zip(&mut out).for_each(|(value, key)| *key = value.map(text));
    } else if let Some(bytes) = array.as_fixed_size_binary_opt().filter(|bytes| bytes.value_length() == 16) {
        // Keys already.
        let read = |value: &[u8]| value.try_into().map(u128::from_be_bytes).ok();
        bytes.iter().zip(&mut out).for_each(|(value, key)| *key = value.and_then(read));
    } else {
        return Err(Error::invalid(format!("`id` must name a column of integers or strings, {name:?} is {}", array.data_type())));
    }
    Ok(out)
}

pub(crate) fn integer(array: &dyn Array, row: usize) -> Option<i128> {
    use arrow_array::types as t;
    use arrow_schema::DataType as T;
    Some(match array.data_type() {
        T::Int8 => array.as_primitive::<t::Int8Type>().value(row).into(),
        T::Int16 => array.as_primitive::<t::Int16Type>().value(row).into(),
        T::Int32 => array.as_primitive::<t::Int32Type>().value(row).into(),
        T::Int64 => array.as_primitive::<t::Int64Type>().value(row).into(),
        T::UInt8 => array.as_primitive::<t::UInt8Type>().value(row).into(),
        T::UInt16 => array.as_primitive::<t::UInt16Type>().value(row).into(),
        T::UInt32 => array.as_primitive::<t::UInt32Type>().value(row).into(),
        T::UInt64 => array.as_primitive::<t::UInt64Type>().value(row).into(),
        _ => return None,
    })
}

/// Row by row as doubles; `None` for nulls and NaN.
///
/// # Errors
/// `InvalidArgument` for a column that holds no numbers.
pub fn doubles(argument: &str, name: &str, array: &dyn Array) -> Result<Vec<Option<f64>>> {
    if let Some(flags) = array.as_boolean_opt() {
        return Ok(flags.iter().map(|flag| flag.map(|flag| f64::from(u8::from(flag)))).collect());
    }
    let mut values = Vec::with_capacity(array.len());
    if !frame::numbers(array, &mut |block| values.extend_from_slice(block)) {
        return Err(Error::invalid(format!("`{argument}` must name a column of numbers, {name:?} is {}", array.data_type())));
    }
    let nulls = array.logical_nulls();
    let mut values = values.into_iter();
    Ok((0..array.len())
        .map(
            |row| if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) { None } else { values.next().filter(|value| !value.is_nan()) },
        )
        .collect())
}

/// Row by row the position of a class; `None` for nulls. Classes are text; whole numbers and booleans are taken as theirs.
///
/// # Errors
/// `InvalidArgument` for a column that is none of these, or, where all have to be known, for a class that is not.
pub fn classes(argument: &str, name: &str, array: &dyn Array, classes: &[String], all: bool) -> Result<Vec<Option<f64>>> {
    let mut unknown = None;
    let mut position = |text: &str| {
        let at = classes.iter().position(|class| class == text);
        if at.is_none() && unknown.is_none() {
            unknown = Some(text.to_owned());
        }
        at.map(|at| at as f64)
    };
    let out: Vec<Option<f64>> = if let Some(strings) = array.as_string_opt::<i32>() {
        strings.iter().map(|text| text.and_then(&mut position)).collect()
    } else if let Some(strings) = array.as_string_opt::<i64>() {
        strings.iter().map(|text| text.and_then(&mut position)).collect()
    } else if let Some(strings) = array.as_string_view_opt() {
        strings.iter().map(|text| text.and_then(&mut position)).collect()
    } else if let Some(flags) = array.as_boolean_opt() {
        flags.iter().map(|flag| flag.and_then(|flag| position(if flag { "true" } else { "false" }))).collect()
    } else if array.data_type().is_integer() {
        let text = |row| integer(array, row).map(|whole| whole.to_string());
        (0..array.len()).map(|row| if array.is_valid(row) { position(&text(row)?) } else { None }).collect()
    } else if array.data_type() == &arrow_schema::DataType::Null {
        vec![None; array.len()]
    } else {
        return Err(Error::invalid(format!("`{argument}` must name a column of classes, {name:?} is {}", array.data_type())));
    };
    match unknown.filter(|_| all) {
        Some(unknown) => Err(Error::invalid(format!("`{argument}` must hold classes of the model, {name:?} holds {unknown:?}"))
            .hint(format!("its classes are {}", classes.join(", ")))),
        None => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Memory {
        known: Mutex<HashMap<u128, Known>>,
        broken: bool,
    }

    impl Memory {
        fn write(&self, overlay: &Overlay) {
            let mut known = self.known.lock().unwrap();
            for (id, prediction, label) in overlay.events() {
                assert!(overlay.is_beneath(id) || !known.contains_key(&id), "the overlay says that {id} is new");
                known.insert(id, Known::Event(prediction.clone(), label));
            }
            for (id, label) in overlay.labels() {
                assert!(overlay.is_beneath(id) || !known.contains_key(&id), "the overlay says that {id} is new");
                known.insert(id, Known::Waiting(label));
            }
        }
    }

    impl Shelf for Memory {
        fn find(&self, id: u128) -> Result<Option<Known>> {
            if self.broken { Err(Error::decode("broken")) } else { Ok(self.known.lock().unwrap().get(&id).cloned()) }
        }

        fn waiting(&self) -> u64 {
            self.known.lock().unwrap().values().filter(|known| matches!(known, Known::Waiting(_))).count() as u64
        }
    }

    fn prediction(tile: i64) -> Prediction {
        Prediction { tile, score: Some(0.5), chances: Box::default(), weight: 1.0, halvings: 0 }
    }

    fn counters(join: &LabelJoin) -> [u64; 4] {
        [join.dropped, join.duplicates, join.superseded, join.orphans() as u64]
    }

    fn bytes(join: &LabelJoin) -> Vec<u8> {
        let mut writer = Writer::new();
        join.encode(&mut writer);
        writer.into_payload()
    }

    #[test]
    fn beside_a_shelf_the_same_is_joined() {
        for (choice, seed) in [Choice::Last, Choice::First].into_iter().flat_map(|choice| (0..20_u64).map(move |seed| (choice, seed))) {
            let shelf = Arc::new(Memory::default());
            let (mut alone, mut beside) = (LabelJoin::new(choice, 1 << 20), LabelJoin::new(choice, 1 << 20));
            beside.lean_on(Arc::clone(&shelf) as Arc<dyn Shelf>);
            let mut frozen = None;
            let mut found = 0;
            for step in 0..3000_u64 {
                let (dice, more) = murmur3_x64_128(&step.to_le_bytes(), seed);
                let id = u128::from(more % 200);
                match dice % 100 {
                    0..45 => assert_eq!(alone.event(id, prediction(step as i64)), beside.event(id, prediction(step as i64))),
                    45..90 => {
                        let label = Label { value: (dice >> 8 & 1) as f64, time: (dice >> 16 & 31) as i64 };
                        let change = alone.label(id, label);
                        found += u64::from(change.is_some());
                        assert_eq!(change, beside.label(id, label));
                    }
                    90..94 => frozen = Some(beside.freeze()),
                    94..97 => frozen.take().into_iter().for_each(|overlay| {
                        shelf.write(&overlay);
                        beside.shelved(&overlay);
                    }),
                    _ => {
                        // A crash: what was written may or may not have been written to the shelf.
                        let memory = bytes(&beside);
                        beside = LabelJoin::decode(&mut Reader::new(&memory), choice, 1 << 20).unwrap();
                        beside.lean_on(Arc::clone(&shelf) as Arc<dyn Shelf>);
                        assert_eq!(bytes(&beside), memory);
                        let overlay = beside.freeze();
                        shelf.write(&overlay);
                        beside.shelved(&overlay);
                        assert_eq!(beside.overlay_len(), 0);
                        frozen = None;
                    }
                }
                assert_eq!(counters(&alone), counters(&beside), "after step {step} of {seed}");
            }
            assert!(found > 50, "{found}");
        }
    }

    #[test]
    fn what_was_set_aside_and_not_written_is_set_aside_again() {
        let shelf = Arc::new(Memory::default());
        let mut join = LabelJoin::new(Choice::Last, 0);
        join.lean_on(Arc::clone(&shelf) as Arc<dyn Shelf>);
        join.event(1, prediction(0));
        join.label(2, Label { value: 1.0, time: 5 });
        let first = join.freeze();
        join.event(2, prediction(0));
        let both = join.freeze();
        assert_eq!((both.len(), both.labels().count()), (2, 0));
        shelf.write(&first);
        join.shelved(&first);
        assert_eq!(join.overlay_len(), 2, "the later one is still to be written");
        shelf.write(&both);
        join.shelved(&both);
        assert_eq!((join.overlay_len(), join.orphans()), (0, 0));
        assert_eq!(shelf.find(2).unwrap(), Some(Known::Event(prediction(0), Some(Label { value: 1.0, time: 5 }))));
    }

    #[test]
    fn a_shelf_that_cannot_be_read_costs_what_came_and_nothing_else() {
        let mut join = LabelJoin::new(Choice::Last, 0);
        join.lean_on(Arc::new(Memory { broken: true, ..Memory::default() }));
        assert_eq!(join.event(1, prediction(0)), None);
        assert_eq!(join.label(2, Label { value: 1.0, time: 0 }), None);
        assert_eq!((join.dropped, join.overlay_len()), (2, 0), "what is on the shelf must not be written over");
    }

    #[test]
    fn beside_a_shelf_memory_is_bounded() {
        let mut join = LabelJoin::new(Choice::Last, 0);
        join.lean_on(Arc::new(Memory::default()));
        for id in 0..MOST_OVERLAID as u128 + 10 {
            join.event(id, prediction(0));
        }
        assert_eq!((join.overlay_len(), join.dropped), (MOST_OVERLAID, 10));
    }

    #[test]
    fn an_erased_id_is_as_if_it_had_never_come() {
        let mut join = LabelJoin::new(Choice::Last, 1 << 20);
        join.event(1, prediction(0));
        join.label(1, Label { value: 1.0, time: 0 });
        join.label(2, Label { value: 1.0, time: 0 });
        join.erase(1);
        join.erase(2);
        assert_eq!((join.overlay_len(), join.orphans()), (0, 0));
        assert_eq!(join.event(2, prediction(0)), None);
    }
}
