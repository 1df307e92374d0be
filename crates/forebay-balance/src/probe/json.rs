//! Load reports that servers print as JSON.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    LoadReport, MAX_BYTES, ParseError,
    report::{count, ratio, sum},
};

/// Whose document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    SglangLoads,
    VllmLoad,
    LlamaCppSlots,
}

/// A document that is read once it is whole: a part of one says nothing.
#[derive(Debug)]
pub(super) struct JsonReader {
    document: Document,
    /// Its rows carry no labels, so that none of them is selected.
    selects: bool,
    page: Vec<u8>,
    too_large: bool,
}

impl JsonReader {
    pub(super) const fn new(document: Document, selects: bool) -> Self {
        Self { document, selects, page: Vec::new(), too_large: false }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), ParseError> {
        self.too_large |= chunk.len() > MAX_BYTES - self.page.len();
        if self.too_large {
            self.page = Vec::new();
            return Err(ParseError::TooLarge);
        }
        self.page.extend_from_slice(chunk);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<LoadReport, ParseError> {
        if self.too_large {
            return Err(ParseError::TooLarge);
        }
        let page = self.page.as_slice();
        let report = match self.document {
            Document::SglangLoads => serde_json::from_slice(page).map(|Object(Loads { loads })| loads.report),
            Document::VllmLoad => serde_json::from_slice(page).map(|Object(load)| Load::report(load)),
            Document::LlamaCppSlots => serde_json::from_slice(page).map(|slots: Rows<Slot>| slots.report),
        };
        let report = report.map_err(|_| ParseError::NotJson)?;
        Ok(if self.selects { LoadReport::default() } else { report })
    }
}

/// Of `/v1/loads`: a row for each data parallel rank.
#[derive(Deserialize)]
struct Loads {
    loads: Rows<Rank>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rank {
    num_running_reqs: Plain,
    num_waiting_reqs: Plain,
    token_usage: Plain,
    max_running_requests: Plain,
}

/// Of `/load`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Load {
    server_load: Plain,
}

/// Of `/slots`: an array of these.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Slot {
    is_processing: Plain,
}

impl Load {
    /// It counts requests from their arrival to the end of their answer, and 0 also where it does not count at all.
    fn report(self) -> LoadReport {
        let running = self.server_load.count().filter(|count| *count > 0);
        LoadReport { running, waiting: running.map(|_| 0), ..LoadReport::default() }
    }
}

/// What a row of an array says: how many run, how many wait, and how much of the KV cache is in use.
trait Row {
    fn says(self) -> (Option<u32>, Option<u32>, Option<f32>);
}

impl Row for Rank {
    fn says(self) -> (Option<u32>, Option<u32>, Option<f32>) {
        // A rank that has not reported yet is all zeros, what it could run included.
        if self.max_running_requests == Plain::Number(0.0) {
            return (None, None, None);
        }
        (self.num_running_reqs.count(), self.num_waiting_reqs.count(), self.token_usage.ratio())
    }
}

impl Row for Slot {
    fn says(self) -> (Option<u32>, Option<u32>, Option<f32>) {
        let running = match self.is_processing {
            Plain::Bool(busy) => Some(u32::from(busy)),
            _ => None,
        };
        (running, Some(0), None)
    }
}

/// The rows of an array together, read one at a time, so that a long one takes no memory.
struct Rows<R> {
    report: LoadReport,
    row: PhantomData<R>,
}

impl<'de, R: Row + Deserialize<'de>> Deserialize<'de> for Rows<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor(PhantomData))
    }
}

struct RowsVisitor<R>(PhantomData<R>);

impl<'de, R: Row + Deserialize<'de>> Visitor<'de> for RowsVisitor<R> {
    type Value = Rows<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Rows<R>, A::Error> {
        let mut report = LoadReport::default();
        let mut first = true;
        while let Some(Object(row)) = rows.next_element::<Object<R>>()? {
            let (running, waiting, kv_used) = row.says();
            let add = |total, one| if first { one } else { sum([total, one]) };
            report.running = add(report.running, running);
            report.waiting = add(report.waiting, waiting);
            report.kv_used = report.kv_used.into_iter().chain(kv_used).reduce(f32::max);
            first = false;
        }
        Ok(Rows { report, row: PhantomData })
    }
}

/// An object: what serde derives takes an array of the values, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// A value where a number or a truth value should be; any other is as if it were not there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Plain {
    Number(f64),
    Bool(bool),
    #[default]
    Other,
}

impl Plain {
    const fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn count(self) -> Option<u32> {
        self.number().and_then(count)
    }

    pub(super) fn ratio(self) -> Option<f32> {
        self.number().and_then(ratio)
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

#[expect(clippy::cast_precision_loss, reason = "what is too large for it is absurd")]
impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
        Ok(Plain::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Plain, E> {
        Ok(Plain::Number(value))
    }

    fn visit_str<E>(self, _: &str) -> Result<Plain, E> {
        Ok(Plain::Other)
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Plain::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Plain, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Plain::Other)
    }
}
