//! Things by event name. Every event is looked up, and most names are short: those are compared as numbers, without a call.

use rustc_hash::FxHashMap;

/// Bytes of a name that is one number; the number's last byte is the length.
const SHORT: usize = 15;

/// What there is for each event name, found fast.
#[derive(Clone)]
pub struct Names<T> {
    short: FxHashMap<u128, T>,
    long: FxHashMap<Box<str>, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            short: FxHashMap::default(),
            long: FxHashMap::default(),
        }
    }
}

impl<T> Names<T> {
    /// What there is for this name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&T> {
        match number(name.as_bytes()) {
            Some(number) => self.short.get(&number),
            None => self.long.get(name),
        }
    }

    /// Puts something under a name; answers what was there before.
    pub fn insert(&mut self, name: &str, value: T) -> Option<T> {
        match number(name.as_bytes()) {
            Some(number) => self.short.insert(number, value),
            None => self.long.insert(name.into(), value),
        }
    }

    /// Takes out what is under a name.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        match number(name.as_bytes()) {
            Some(number) => self.short.remove(&number),
            None => self.long.remove(name),
        }
    }
}

impl<T> std::fmt::Debug for Names<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Names({})", self.short.len() + self.long.len())
    }
}

/// A short name as a number of its own: two loads that overlap, and the length.
#[inline]
fn number(name: &[u8]) -> Option<u128> {
    let len = name.len();
    let bits = 8 * len as u32;
    let (low, high) = match len {
        8..=SHORT => {
            let high = u64::from_le_bytes(*name.last_chunk()?);
            let low = u64::from_le_bytes(*name.first_chunk()?);
            // None of the eighth byte and of those before it.
            (low, high.checked_shr(128 - bits).unwrap_or(0))
        }
        4..8 => {
            let high = u64::from(u32::from_le_bytes(*name.last_chunk()?));
            let low = u64::from(u32::from_le_bytes(*name.first_chunk()?));
            (low | high << (bits - 32), 0)
        }
        1..4 => {
            let byte = |at: usize| u64::from(name[at]) << (8 * at);
            (byte(0) | byte(len / 2) | byte(len - 1), 0)
        }
        0 => (0, 0),
        _ => return None,
    };
    Some(u128::from(low) | u128::from(high) << 64 | (len as u128) << 120)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Names, SHORT, number};

    #[test]
    fn a_number_is_its_name_and_its_length() {
        for len in 0..=SHORT {
            let name: Vec<u8> = (1..).take(len).collect();
            let mut wanted = [0; 16];
            wanted[..len].copy_from_slice(&name);
            wanted[SHORT] = len as u8;
            assert_eq!(number(&name), Some(u128::from_le_bytes(wanted)), "{len}");
        }
        assert_eq!(number(&[b'a'; SHORT + 1]), None);
    }

    #[test]
    fn names_that_resemble_each_other_are_different() {
        let mut names = Names::default();
        let mut all = HashSet::new();
        for len in 0..40 {
            for letter in ["a", "b", "\0"] {
                for at in 0..=len {
                    let name = format!("{}{letter}{}", "a".repeat(at), "a".repeat(len - at));
                    if all.insert(name.clone()) {
                        assert_eq!(names.insert(&name, name.clone()), None, "{name:?}");
                    }
                }
            }
        }
        for name in &all {
            assert_eq!(names.get(name), Some(name));
        }
        assert_eq!(names.get("c"), None);
        for name in &all {
            assert_eq!(names.remove(name).as_ref(), Some(name));
            assert_eq!(names.get(name), None);
        }
    }
}
