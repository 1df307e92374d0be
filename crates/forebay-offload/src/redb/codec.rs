//! Records as bytes: a version byte, a checksum, then postcard.

use bytes::Bytes;
use forebay_core::{AffinityKey, Class, Principal};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    policy::{Cause, Job, JobId, JobState, KeyRecord, KeyTag, OwnerTag},
    store::{StoredRequest, StoredResponse},
};

const VERSION: u8 = 1;
/// Bytes of the BLAKE3 digest in front of a record.
const CHECK: usize = 8;

/// The record could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// Something that is written down.
pub(super) trait Record: Sized {
    type Written: Serialize + DeserializeOwned;

    fn write(&self) -> Self::Written;
    fn read(written: Self::Written) -> Option<Self>;

    fn encode(&self) -> Vec<u8> {
        let mut record = vec![VERSION; 1 + CHECK];
        // These types hold numbers, strings and lists: postcard refuses none of them.
        let bytes = postcard::to_extend(&self.write(), Vec::new()).unwrap_or_default();
        record[1..].copy_from_slice(&check(&bytes));
        record.extend_from_slice(&bytes);
        record
    }

    fn decode(record: &[u8]) -> Result<Self, Corrupt> {
        let (&version, rest) = record.split_first().ok_or(Corrupt)?;
        let (sum, bytes) = rest.split_at_checked(CHECK).ok_or(Corrupt)?;
        if version != VERSION || sum != check(bytes) {
            return Err(Corrupt);
        }
        postcard::from_bytes(bytes).ok().and_then(Self::read).ok_or(Corrupt)
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let mut sum = [0; CHECK];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK]);
    sum
}

#[derive(Serialize, Deserialize)]
pub(super) struct WrittenJob {
    id: u128,
    class: u8,
    owner: Option<u128>,
    key: Option<u128>,
    state: u8,
    cause: Option<u8>,
    http_status: Option<u16>,
    counts: [u32; 4],
    tokens: [u64; 2],
    times: [u64; 5],
    started: Option<u64>,
    ended: Option<u64>,
    limits: [u64; 3],
    bytes: [u64; 2],
}

const STATES: [JobState; 7] = [
    JobState::Scheduled,
    JobState::Ready,
    JobState::Running,
    JobState::Completed,
    JobState::Failed,
    JobState::Cancelled,
    JobState::Expired,
];
const CAUSES: [Cause; 6] =
    [Cause::Refused, Cause::Attempts, Cause::TooLate, Cause::Crashes, Cause::TooLarge, Cause::Corrupt];

fn code<T: PartialEq>(table: &[T], value: &T) -> u8 {
    // The tables are complete; an unknown value would be read back as corrupt.
    table.iter().position(|known| known == value).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

impl Record for Job {
    type Written = WrittenJob;

    fn write(&self) -> WrittenJob {
        WrittenJob {
            id: self.id.as_u128(),
            class: u8::try_from(self.class.index()).unwrap_or(u8::MAX),
            owner: self.owner.map(OwnerTag::as_u128),
            key: self.key.map(KeyTag::as_u128),
            state: code(&STATES, &self.state),
            cause: self.cause.map(|cause| code(&CAUSES, &cause)),
            http_status: self.http_status,
            counts: [self.attempts, self.crashes, self.max_attempts, self.max_crashes],
            tokens: [self.token, self.settled],
            times: [self.created, self.due, self.run_at, self.expires, self.until],
            started: self.started,
            ended: self.ended,
            limits: [self.timeout_ms, self.kept_ms, self.dead_kept_ms],
            bytes: [self.request_bytes, self.response_bytes],
        }
    }

    fn read(written: WrittenJob) -> Option<Self> {
        let [attempts, crashes, max_attempts, max_crashes] = written.counts;
        let [token, settled] = written.tokens;
        let [created, due, run_at, expires, until] = written.times;
        let [timeout_ms, kept_ms, dead_kept_ms] = written.limits;
        let [request_bytes, response_bytes] = written.bytes;
        let cause = match written.cause {
            Some(cause) => Some(*CAUSES.get(usize::from(cause))?),
            None => None,
        };
        Some(Self {
            id: JobId::from_u128(written.id),
            class: Class::new(written.class),
            owner: written.owner.map(OwnerTag::from_u128),
            key: written.key.map(KeyTag::from_u128),
            state: *STATES.get(usize::from(written.state))?,
            cause,
            http_status: written.http_status,
            attempts,
            crashes,
            max_attempts,
            max_crashes,
            token,
            settled,
            created,
            due,
            run_at,
            expires,
            started: written.started,
            ended: written.ended,
            until,
            timeout_ms,
            kept_ms,
            dead_kept_ms,
            request_bytes,
            response_bytes,
        })
    }
}

impl Record for KeyRecord {
    type Written = (u128, u128, u64);

    fn write(&self) -> Self::Written {
        (self.id.as_u128(), self.fingerprint.as_u128(), self.until)
    }

    fn read((id, fingerprint, until): Self::Written) -> Option<Self> {
        Some(Self { id: JobId::from_u128(id), fingerprint: KeyTag::from_u128(fingerprint), until })
    }
}

type Fields = Vec<(String, Vec<u8>)>;

fn write_fields(headers: &HeaderMap) -> Fields {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

fn read_fields(fields: Fields) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?);
    }
    Some(headers)
}

const VERSIONS: [Version; 5] = [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10, Version::HTTP_3, Version::HTTP_09];

#[derive(Serialize, Deserialize)]
pub(super) struct WrittenRequest {
    method: String,
    uri: String,
    version: u8,
    headers: Fields,
    principal: Option<Vec<u8>>,
    affinity: Option<u64>,
    body: Vec<u8>,
}

impl Record for StoredRequest {
    type Written = WrittenRequest;

    fn write(&self) -> WrittenRequest {
        WrittenRequest {
            method: self.method.as_str().to_owned(),
            uri: self.uri.to_string(),
            version: code(&VERSIONS, &self.version),
            headers: write_fields(&self.headers),
            principal: self.principal.as_ref().map(|principal| principal.as_bytes().to_vec()),
            affinity: self.affinity.map(|key| key.0),
            body: self.body.to_vec(),
        }
    }

    fn read(written: WrittenRequest) -> Option<Self> {
        let mut request = Self::new(Method::from_bytes(written.method.as_bytes()).ok()?, written.uri.parse().ok()?);
        request.version = *VERSIONS.get(usize::from(written.version))?;
        request.headers = read_fields(written.headers)?;
        request.principal = written.principal.map(Principal::from_bytes);
        request.affinity = written.affinity.map(AffinityKey);
        request.body = Bytes::from(written.body);
        Some(request)
    }
}

impl Record for StoredResponse {
    type Written = (u16, Fields, Vec<u8>);

    fn write(&self) -> Self::Written {
        (self.status.as_u16(), write_fields(&self.headers), self.body.to_vec())
    }

    fn read((status, headers, body): Self::Written) -> Option<Self> {
        let mut response = Self::new(StatusCode::from_u16(status).ok()?, Bytes::from(body));
        response.headers = read_fields(headers)?;
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderValue, Method, Uri};

    use super::{Corrupt, Record, StoredRequest};

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let mut request = StoredRequest::new(Method::POST, Uri::from_static("http://x/v1/report?a=b"));
        request.headers.insert("x-a", HeaderValue::from_static("1"));
        request.body = Bytes::from_static(b"{}");
        let record = request.encode();
        let read = StoredRequest::decode(&record).unwrap();
        assert_eq!((read.uri, read.headers, read.body), (request.uri, request.headers, request.body));
        for byte in 0..record.len() {
            for bit in 0..8 {
                let mut flipped = record.clone();
                flipped[byte] ^= 1 << bit;
                assert_eq!(StoredRequest::decode(&flipped).err(), Some(Corrupt), "{byte}.{bit}");
            }
        }
        for len in 0..record.len() {
            assert_eq!(StoredRequest::decode(&record[..len]).err(), Some(Corrupt), "{len}");
        }
    }
}
