//! Damages bytes that meant something, in the ways in which networks, programs and attackers do.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use proptest::prelude::*;
use proptest::sample::Index;

/// One damage. Places and lengths are relative, so that it fits bytes of any length.
#[derive(Debug, Clone)]
pub enum Damage {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    /// Leaves out up to 100 bytes.
    Cut(Index, usize),
    /// Repeats up to 100 bytes elsewhere.
    Copy(Index, usize, Index),
    End(Index),
}

/// A few of them; what is inserted is arbitrary, or one of these words.
pub fn damages(words: &'static [&'static str]) -> impl Strategy<Value = Vec<Damage>> {
    let (at, length) = (any::<Index>, 0..100_usize);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..5),
        prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
    ];
    let damage = prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => (at(), bytes).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), length.clone()).prop_map(|(at, length)| Damage::Cut(at, length)),
        2 => (at(), length, at()).prop_map(|(from, length, to)| Damage::Copy(from, length, to)),
        1 => at().prop_map(Damage::End),
    ];
    prop::collection::vec(damage, 1..6)
}

pub fn damaged(sample: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for damage in damages {
        let all = bytes.len();
        let place = |at: &Index| at.index(all + 1);
        let range = |at: &Index, length: usize| place(at)..(place(at) + length).min(all);
        match damage {
            Damage::Set(at, byte) if all > 0 => bytes[at.index(all)] = *byte,
            Damage::Set(..) => {}
            Damage::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Damage::Cut(at, length) => drop(bytes.drain(range(at, *length))),
            Damage::Copy(from, length, to) => {
                let piece = bytes[range(from, *length)].to_vec();
                drop(bytes.splice(place(to)..place(to), piece));
            }
            Damage::End(at) => bytes.truncate(place(at)),
        }
    }
    bytes
}

/// Bytes in pieces that are cut at these places; none is empty.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).filter(|piece| !piece.is_empty()).collect()
}
