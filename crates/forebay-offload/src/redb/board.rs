use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use forebay_core::Class;

use crate::{
    policy::{Machine, Stats},
    store::{Watchers, lock},
};

/// What the writer lets others see without asking it, by queue.
#[derive(Debug, Default)]
pub(super) struct Board {
    queues: Mutex<HashMap<String, Notice>>,
}

#[derive(Debug, Default)]
struct Notice {
    stats: Stats,
    retry_after_s: Option<[u64; Class::COUNT]>,
    watchers: Arc<Watchers>,
}

impl Board {
    pub(super) fn publish(&self, queue: &str, machine: &Machine) {
        let retry_after_s = std::array::from_fn(|class| machine.retry_after_s(class_at(class)));
        self.notice(queue, |notice| {
            notice.stats = machine.stats();
            notice.retry_after_s = Some(retry_after_s);
        });
    }

    pub(super) fn stats(&self, queue: &str) -> Stats {
        self.notice(queue, |notice| notice.stats)
    }

    pub(super) fn retry_after_s(&self, queue: &str, class: Class) -> u64 {
        self.notice(queue, |notice| notice.retry_after_s.map_or(5, |seconds| seconds[class.index()]))
    }

    pub(super) fn watchers(&self, queue: &str) -> Arc<Watchers> {
        self.notice(queue, |notice| Arc::clone(&notice.watchers))
    }

    fn notice<T>(&self, queue: &str, work: impl FnOnce(&mut Notice) -> T) -> T {
        let mut queues = lock(&self.queues);
        match queues.get_mut(queue) {
            Some(notice) => work(notice),
            None => work(queues.entry(queue.to_owned()).or_default()),
        }
    }
}

fn class_at(index: usize) -> Class {
    Class::new(u8::try_from(index).unwrap_or(u8::MAX))
}
