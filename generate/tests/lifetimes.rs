//! Random lifetimes over a decoder that knows what the cache must hold: every answer depends on every
//! token of the sequence, read through its pages, and is compared with the sequence computed alone.

use silure_generate::{Batch, Decoder, End, Event, Limits, Request, Result, Scheduler, Settings};
use std::collections::HashMap;

const VOCAB: usize = 32;

/// Remembers the token and position written to each row.
struct Rows {
    limits: Limits,
    rows: Vec<Option<(i64, i64)>>,
    copies: usize,
    /// Tokens that were computed.
    computed: usize,
}

/// The token after a history.
fn after(history: &[i64]) -> usize {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for t in history {
        h = (h ^ *t as u64).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    (h >> 7) as usize % VOCAB
}

impl Rows {
    fn new(limits: Limits) -> Rows {
        let rows = vec![None; limits.pages as usize * limits.page];
        Rows { limits, rows, copies: 0, computed: 0 }
    }

    fn run(&mut self, b: &Batch, ends: &[i64], rows: &[i64]) -> Vec<f32> {
        assert!(b.tokens.len() <= self.limits.tokens && b.lengths.len() <= self.limits.sequences);
        assert!(b.width <= self.limits.width && b.pages.len() == b.width * b.lengths.len());
        for i in 0..b.tokens.len() {
            self.rows[b.slots[i] as usize] = Some((b.tokens[i], b.positions[i]));
        }
        self.computed += b.tokens.len();
        let mut start = 0;
        let mut answers = vec![0; b.tokens.len()];
        for (i, end) in ends.iter().enumerate() {
            let pages = &b.pages[i * b.width..(i + 1) * b.width];
            let read = |at: i64| {
                let row = pages[at as usize / self.limits.page] as usize * self.limits.page
                    + at as usize % self.limits.page;
                let (token, position) = self.rows[row].expect("a row that was written");
                assert_eq!(position, at, "the row of another position");
                token
            };
            let history: Vec<i64> = (0..b.lengths[i]).map(read).collect();
            for (t, answer) in answers.iter_mut().enumerate().take(*end as usize).skip(start) {
                *answer = after(&history[..=b.positions[t] as usize]);
            }
            start = *end as usize;
        }
        assert_eq!(start, b.tokens.len());
        let one = |r: &i64| (0..VOCAB).map(|t| (t == answers[*r as usize]) as u8 as f32).collect();
        rows.iter().flat_map(|r| -> Vec<f32> { one(r) }).collect()
    }
}

impl Decoder for Rows {
    fn limits(&self) -> Limits {
        self.limits
    }
    fn prefill(&mut self, b: &Batch) -> Result<Vec<f32>> {
        assert!(!b.rows.is_empty());
        Ok(self.run(b, &b.ends, &b.rows))
    }
    fn decode(&mut self, b: &Batch) -> Result<Vec<f32>> {
        assert_eq!(b.tokens.len(), b.lengths.len());
        let all: Vec<i64> = (0..b.tokens.len() as i64).collect();
        let ends: Vec<i64> = all.iter().map(|i| i + 1).collect();
        Ok(self.run(b, &ends, &all))
    }
    fn copy_page(&mut self, from: u32, to: u32) -> Result<()> {
        self.copies += 1;
        let page = self.limits.page;
        let (from, to) = (from as usize * page, to as usize * page);
        self.rows.copy_within(from..from + page, to);
        Ok(())
    }
}

fn limits(pages: u32) -> Limits {
    Limits { page: 4, pages, context: 48, vocab: VOCAB, tokens: 16, sequences: 5, width: 12 }
}

/// The sequence computed alone.
fn alone(r: &Request, context: usize) -> (Vec<u32>, End) {
    let mut history: Vec<i64> = r.prompt.iter().map(|t| *t as i64).collect();
    let mut out = vec![];
    loop {
        if out.len() >= r.max_new_tokens {
            return (out, End::Length);
        }
        if history.len() >= context && !out.is_empty() {
            return (out, End::Context);
        }
        let t = after(&history) as u32;
        if !r.ignore_stop && r.settings.stop.contains(&t) {
            return (out, End::Stop(t));
        }
        out.push(t);
        history.push(t as i64);
    }
}

struct Rng(u64);
impl Rng {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// A prompt; many share beginnings.
fn request(rng: &mut Rng) -> Request {
    let n = 1 + rng.next(30);
    let shared = rng.next(4) as u32;
    let own = rng.next(n + 1);
    let prompt = (0..n as u32)
        .map(|i| if i < own as u32 { (shared + i) % 7 } else { rng.next(VOCAB) as u32 })
        .collect();
    Request {
        prompt,
        settings: Settings { stop: vec![3], ..Settings::default() },
        max_new_tokens: rng.next(24),
        ignore_stop: rng.next(2) == 0,
        prompt_logits: rng.next(16) == 0,
    }
}

#[test]
fn ten_thousand_lifetimes_answer_as_alone_and_leak_no_page() {
    let mut rng = Rng(11);
    let mut s = Scheduler::new(Rows::new(limits(20)), 7);
    let (mut open, mut left): (HashMap<u64, (Request, Vec<u32>, usize)>, _) =
        (HashMap::new(), 10_000);
    let (mut ended, mut cancelled, mut asked) = (0, 0, 0);
    while left > 0 || !s.idle() {
        while left > 0 && rng.next(3) > 0 {
            let r = request(&mut rng);
            asked += r.prompt.len();
            open.insert(s.add(r.clone()).unwrap(), (r, vec![], 0));
            left -= 1;
        }
        for e in s.step().unwrap() {
            match e {
                Event::Token(id, t) => open.get_mut(&id).unwrap().1.push(t),
                Event::Logits(id, rows) => {
                    let (r, _, given) = open.get_mut(&id).unwrap();
                    for row in rows.chunks(VOCAB) {
                        let history: Vec<i64> = r.prompt.iter().map(|t| *t as i64).collect();
                        assert_eq!(row[after(&history[..=*given])], 1.0);
                        *given += 1;
                    }
                }
                Event::End(id, end) => {
                    let (r, out, given) = open.remove(&id).unwrap();
                    assert_eq!((out, end), alone(&r, 48), "{r:?}");
                    assert_eq!(given, if r.prompt_logits { r.prompt.len() } else { 0 });
                    ended += 1;
                }
            }
        }
        if rng.next(8) == 0
            && let Some(id) = open.keys().min().copied()
        {
            open.remove(&id);
            s.finish(id);
            cancelled += 1;
        }
        assert!(s.consistent());
    }
    assert_eq!((ended + cancelled, open.len()), (10_000, 0));
    assert!(ended > 5000 && cancelled > 500, "{ended} ended, {cancelled} cancelled");
    assert_eq!(s.pages().available(), 20, "every page is free or idle");
    let Rows { copies, computed, .. } = s.decoder();
    assert!(*copies > 20, "{copies} copies on write");
    assert!(*computed > 0 && asked > 0);
}

#[test]
fn a_known_beginning_is_not_computed_again() {
    let mut s = Scheduler::new(Rows::new(limits(20)), 16);
    let prompt: Vec<u32> = (0..16).collect();
    let run = |s: &mut Scheduler<Rows>, prompt: &[u32]| {
        let before = s.decoder().computed;
        s.add(Request { prompt: prompt.to_vec(), max_new_tokens: 1, ..Request::default() })
            .unwrap();
        while !s.idle() {
            s.step().unwrap();
        }
        s.decoder().computed - before
    };
    assert_eq!(run(&mut s, &prompt), 16);
    assert_eq!(run(&mut s, &prompt), 1, "the last token alone");
    assert_eq!(s.decoder().copies, 1);
    assert_eq!(run(&mut s, &prompt[..10]), 2, "two pages are known");
}

#[test]
fn the_ends_are_said() {
    let end = |pages: u32, prompt: usize, max: usize| {
        let mut s = Scheduler::new(Rows::new(limits(pages)), 16);
        let settings = Settings { stop: (0..VOCAB as u32).collect(), ..Settings::default() };
        let prompt = vec![5; prompt];
        let ignore_stop = max > 1;
        s.add(Request {
            prompt,
            settings,
            max_new_tokens: max,
            ignore_stop,
            ..Request::default()
        })?;
        let mut all = vec![];
        while !s.idle() {
            all.extend(s.step()?);
        }
        assert!(s.consistent() && s.pages().available() == pages as usize);
        let tokens = all.iter().filter(|e| matches!(e, Event::Token(..))).count();
        match all.pop() {
            Some(Event::End(_, end)) => Ok::<_, silure_generate::Error>((end, tokens)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end(20, 8, 3).unwrap(), (End::Length, 3));
    assert_eq!(end(20, 8, 0).unwrap(), (End::Length, 0));
    assert!(matches!(end(20, 8, 1).unwrap(), (End::Stop(_), 0)));
    assert_eq!(end(20, 40, 100).unwrap(), (End::Context, 8));
    assert_eq!(end(3, 8, 100).unwrap(), (End::Cache, 5));
    assert_eq!(end(1, 8, 100).unwrap(), (End::Cache, 0));
    let e = end(20, 49, 1).unwrap_err().to_string();
    assert_eq!(e, "prompt: needed 1 to 48 tokens (the model's context), present 49");
    assert!(end(20, 0, 1).is_err());
}
