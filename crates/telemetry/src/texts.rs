//! The texts of scopes' labels, one behind the other in the order of their making. A family's page has its scopes in the same
//! order, so that it reads the texts as they lie, which a processor sees coming; and a text takes what it is long.
//!
//! What goes leaves a gap; the gaps are closed when they are half of it.

/// The texts.
#[derive(Default)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    /// How many bytes are of texts that went.
    gaps: usize,
}

/// One of them, of a scope that has it from the beginning to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Text {
    at: u32,
    /// How long it is, and whether it is another's.
    about: u32,
}

/// The text goes with another scope, which outlives this one.
const SHARED: u32 = 1 << 31;

impl Text {
    /// The same for a scope beneath.
    pub(crate) fn shared(self) -> Self {
        Self { about: self.about | SHARED, ..self }
    }

    fn len(self) -> usize {
        (self.about & !SHARED) as usize
    }
}

impl Texts {
    pub(crate) fn add(&mut self, text: &[u8]) -> Text {
        assert!(self.bytes.len() + text.len() < SHARED as usize, "the labels of all scopes take less than 2 GiB");
        if self.bytes.capacity() - self.bytes.len() < text.len() {
            // As `names::push` does.
            self.bytes.reserve_exact(self.bytes.len() / 8 + text.len());
        }
        let new = Text { at: self.bytes.len() as u32, about: text.len() as u32 };
        self.bytes.extend_from_slice(text);
        new
    }

    #[inline(always)]
    pub(crate) fn get(&self, text: Text) -> &[u8] {
        &self.bytes[text.at as usize..][..text.len()]
    }

    /// Forgets a text that goes with its scope; says whether it is time to [close up](Self::close_up).
    pub(crate) fn remove(&mut self, text: Text) -> bool {
        if text.about & SHARED == 0 {
            self.gaps += text.len();
        }
        self.gaps * 2 > self.bytes.len()
    }

    /// Closes the gaps between these, which are all.
    pub(crate) fn close_up<'a>(&mut self, all: impl Iterator<Item = &'a mut Text>) {
        let mut all: Vec<&mut Text> = all.collect();
        all.sort_unstable_by_key(|text| text.at);
        let mut end = 0;
        let mut last = None;
        for text in all {
            let (from, len) = (text.at as usize, text.len());
            let to = match last {
                Some((same, to)) if same == from && len > 0 => to,
                _ => {
                    self.bytes.copy_within(from..from + len, end);
                    end += len;
                    end - len
                }
            };
            if len > 0 {
                last = Some((from, to));
            }
            text.at = to as u32;
        }
        self.bytes.truncate(end);
        self.bytes.shrink_to(end + end / 8);
        self.gaps = 0;
    }

    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_text_stays_what_it_was_until_it_goes(acts in prop::collection::vec((0..3, 0..9_usize), 0..200)) {
            let mut texts = Texts::default();
            let mut live: Vec<(Text, Vec<u8>)> = Vec::new();
            for (number, (act, n)) in acts.into_iter().enumerate() {
                match act {
                    0 => {
                        let text = vec![number as u8; n];
                        live.push((texts.add(&text), text));
                    }
                    1 if !live.is_empty() => {
                        let (text, bytes) = live[n % live.len()].clone();
                        live.push((text.shared(), bytes));
                    }
                    _ if !live.is_empty() => {
                        // With all that share it.
                        let (gone, _) = live[n % live.len()];
                        live.retain(|(text, _)| text.at != gone.at || text.len() != gone.len());
                        if texts.remove(Text { about: gone.about & !SHARED, ..gone }) {
                            texts.close_up(live.iter_mut().map(|(text, _)| text));
                        }
                    }
                    _ => {}
                }
                for (text, bytes) in &live {
                    prop_assert_eq!(texts.get(*text), &**bytes);
                }
                prop_assert!(texts.gaps * 2 <= texts.bytes.len());
            }
        }
    }
}
