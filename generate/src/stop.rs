//! Strings that end a text.

/// Watches a growing text for strings that end it, and holds back what may become one.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Watches for these; empty ones are left out.
    pub fn new(stops: &[String]) -> StopStrings {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        StopStrings { stops, held: String::new() }
    }

    /// Takes a piece of text; gives what is certain to come before any stop string, and whether one was
    /// found. What was found, and all behind it, is never given.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            let before = self.held[..at].to_string();
            self.held.clear();
            return (before, true);
        }
        let begins = |at: usize| self.stops.iter().any(|s| s.starts_with(&self.held[at..]));
        let at = self.held.char_indices().map(|(i, _)| i).find(|i| begins(*i));
        let rest = self.held.split_off(at.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that was held back, when no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_found_across_pieces_and_nothing_else_is_lost() {
        let stops = ["END".to_string(), "\n\n".into(), String::new()];
        for (text, want, found) in [
            ("a ENx EN END b", "a ENx EN ", true),
            ("one\ntwo\n\nthree", "one\ntwo", true),
            ("é ENé EN", "é ENé EN", false),
            ("EEND", "E", true),
        ] {
            for size in 1..4 {
                let mut s = StopStrings::new(&stops);
                let (mut out, mut stopped) = (String::new(), false);
                let chars: Vec<char> = text.chars().collect();
                for piece in chars.chunks(size) {
                    let (more, stop) = s.push(&piece.iter().collect::<String>());
                    out += &more;
                    stopped = stop;
                    if stop {
                        break;
                    }
                }
                if !stopped {
                    out += &s.finish();
                }
                assert_eq!((out.as_str(), stopped), (want, found), "{text:?} by {size}");
            }
        }
    }
}
