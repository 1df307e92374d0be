use redb::TableDefinition;

/// Queue name and 128 bits: of a job id, or of a key.
pub(super) type Key = (&'static str, u128);
pub(super) type Table = TableDefinition<'static, Key, &'static [u8]>;

pub(super) const JOBS: Table = TableDefinition::new("jobs");
pub(super) const REQUESTS: Table = TableDefinition::new("requests");
pub(super) const RESPONSES: Table = TableDefinition::new("responses");
pub(super) const KEYS: Table = TableDefinition::new("keys");
pub(super) const SECRETS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("secrets");
