//! Several sequences of different lengths, step by step.
//!
//! A step is at most one `prefill`, of chunks of the sequences that have more than one token to compute,
//! and at most one `decode`, of one token of each of the others. Chunks begin at multiples of the chunk's
//! size behind what the cache already has, so they do not depend on what else runs. Sequences are taken
//! in the order in which they came; where pages run out, the one that came last gives its pages back and
//! is computed again later.

use crate::error::{Error, Result};
use crate::model::{Batch, Decoder, Draws, Limits};
use crate::pages::{Pages, Table};
use crate::sampler::Sampler;
use crate::settings::Settings;
use std::collections::VecDeque;

/// A sequence to continue.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The tokens it begins with, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen, and which end it.
    pub settings: Settings,
    /// Most tokens to generate; 0 computes the prompt alone.
    pub max_new_tokens: usize,
    /// Go on behind the tokens that would end it.
    pub ignore_stop: bool,
    /// Give the logits of every token of the prompt; then no beginning is shared.
    pub prompt_logits: bool,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This token ends it; it is not given as one.
    Stop(u32),
    /// As many tokens as were asked for.
    Length,
    /// As many tokens as the model can take together.
    Context,
    /// The cache has too few pages for this sequence alone.
    Cache,
}

/// What a step brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Logits of the prompt's next tokens, row by row.
    Logits(u64, Vec<f32>),
    /// The next token of a sequence.
    Token(u64, u32),
    /// A sequence ended.
    End(u64, End),
}

struct Sequence {
    id: u64,
    request: Request,
    sampler: Sampler,
    /// The prompt and what was generated.
    tokens: Vec<u32>,
    /// How many of them the cache has.
    done: usize,
    /// Rows of the prompt's logits that were given.
    given: usize,
    table: Table,
}

impl Sequence {
    /// Whether it goes through `prefill` next.
    fn fills(&self) -> bool {
        self.done < self.request.prompt.len() || self.tokens.len() - self.done > 1
    }
}

/// Runs sequences over one decoder.
pub struct Scheduler<D> {
    decoder: D,
    limits: Limits,
    pages: Pages,
    chunk: usize,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    next: u64,
}

impl<D: Decoder> Scheduler<D> {
    /// A scheduler over an empty cache; prompts go in chunks of at most `chunk` tokens.
    pub fn new(decoder: D, chunk: usize) -> Scheduler<D> {
        let mut limits = decoder.limits();
        limits.context = limits.context.min(limits.width.saturating_mul(limits.page));
        Scheduler {
            pages: Pages::new(limits.pages, limits.page),
            chunk: chunk.clamp(1, limits.tokens.max(1)),
            limits,
            decoder,
            waiting: VecDeque::new(),
            running: vec![],
            next: 0,
        }
    }

    /// The decoder.
    pub fn decoder(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// The cache's pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Most tokens of a sequence.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// Adds a sequence; gives its number.
    pub fn add(&mut self, request: Request) -> Result<u64> {
        let n = request.prompt.len();
        if n == 0 || n > self.limits.context {
            let needed = format!("1 to {} tokens (the model's context)", self.limits.context);
            return Err(Error::field("prompt", needed, n));
        }
        let vocab = self.limits.vocab;
        if let Some(t) = request.prompt.iter().find(|t| **t as usize >= vocab) {
            return Err(Error::field("prompt", format!("tokens below {vocab}"), t));
        }
        let sampler = Sampler::new(&request.settings)?;
        let (id, tokens) = (self.next, request.prompt.clone());
        self.next += 1;
        let table = Table::default();
        self.waiting.push_back(Sequence { id, request, sampler, tokens, done: 0, given: 0, table });
        Ok(id)
    }

    /// Ends a sequence from outside, for example at a stop string.
    pub fn finish(&mut self, id: u64) {
        self.waiting.retain(|s| s.id != id);
        if let Some(i) = self.running.iter().position(|s| s.id == id) {
            self.pages.release(self.running.remove(i).table);
        }
    }

    /// Whether no sequence is left.
    pub fn idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Whether the pages are held by the running sequences and by nothing else.
    pub fn consistent(&self) -> bool {
        let tables: Vec<&Table> = self.running.iter().map(|s| &s.table).collect();
        self.pages.consistent(&tables)
    }

    /// One step. After an error of the decoder the cache is unknown: the scheduler is of no more use.
    pub fn step(&mut self) -> Result<Vec<Event>> {
        let mut events = vec![];
        self.admit(&mut events);
        for decode in [false, true] {
            self.part(decode, &mut events)?;
        }
        Ok(events)
    }

    /// Takes up waiting sequences while there is room for them.
    fn admit(&mut self, events: &mut Vec<Event>) {
        while self.running.len() < self.limits.sequences {
            let Some(mut s) = self.waiting.pop_front() else { return };
            if !s.request.prompt_logits {
                let (table, known) = self.pages.known(&s.tokens);
                // The last token is computed in any case, for its logits.
                (s.table, s.done) = (table, known.min(s.tokens.len() - 1));
            }
            let missing = self.pages.needed(s.tokens.len()) - s.table.pages().len();
            let copied = (s.table.pages().len() * self.pages.rows() > s.done) as usize;
            if missing + copied <= self.pages.available() {
                self.running.push(s);
                continue;
            }
            self.pages.release(std::mem::take(&mut s.table));
            s.done = 0;
            if !self.running.is_empty() {
                self.waiting.push_front(s);
                return;
            }
            events.push(Event::End(s.id, End::Cache));
        }
    }

    /// One run of an entry for the sequences that go through it.
    fn part(&mut self, decode: bool, events: &mut Vec<Event>) -> Result<()> {
        let (chosen, batch) = self.batch(decode, events)?;
        if chosen.is_empty() {
            return Ok(());
        }
        if decode && self.decoder.draws() {
            return self.drawn(chosen, &batch, events);
        }
        let logits = match decode {
            true => self.decoder.decode(&batch)?,
            false => self.decoder.prefill(&batch)?,
        };
        let vocab = self.limits.vocab;
        let (mut row, mut over) = (0, vec![]);
        for (i, count) in chosen {
            let s = &mut self.running[i];
            let wanted = s.rows(s.done + count);
            let own = &logits[row * vocab..(row + wanted.len()) * vocab];
            row += wanted.len();
            s.done += count;
            self.pages.publish(&mut s.table, &s.tokens[..s.done]);
            let prompt = s.request.prompt.len();
            if s.request.prompt_logits && wanted.start.max(s.given) < wanted.end.min(prompt) {
                s.given = wanted.end.min(prompt);
                let given = own[..(s.given - wanted.start) * vocab].to_vec();
                events.push(Event::Logits(s.id, given));
            }
            if s.done < s.tokens.len() {
                continue;
            }
            let end = match s.request.max_new_tokens {
                0 => Some(End::Length),
                _ => s.advance(&own[own.len() - vocab..], self.limits.context, events)?,
            };
            if let Some(end) = end {
                events.push(Event::End(s.id, end));
                over.push(s.id);
            }
        }
        over.into_iter().for_each(|id| self.finish(id));
        Ok(())
    }

    /// A `decode` that draws tokens itself.
    fn drawn(
        &mut self,
        chosen: Vec<(usize, usize)>,
        batch: &Batch,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let (mut draws, mut seen) = (Draws::default(), vec![]);
        for (i, _) in &chosen {
            let s = &mut self.running[*i];
            draws.settings.extend(s.sampler.row().numbers());
            seen.push(s.sampler.seen(&s.tokens).to_vec());
        }
        draws.words = seen.iter().map(Vec::len).max().unwrap_or(0);
        for mut row in seen {
            row.resize(draws.words, 0);
            draws.seen.extend(row);
        }
        let (tokens, mut over) = (self.decoder.draw(batch, &draws)?, vec![]);
        for ((i, count), token) in chosen.into_iter().zip(tokens) {
            let s = &mut self.running[i];
            s.done += count;
            self.pages.publish(&mut s.table, &s.tokens[..s.done]);
            let Ok(token) = u32::try_from(token) else {
                return Err(Error::field("logits", "numbers, one of them finite", "others"));
            };
            if let Some(end) = s.take(token, self.limits.context, events) {
                events.push(Event::End(s.id, end));
                over.push(s.id);
            }
        }
        over.into_iter().for_each(|id| self.finish(id));
        Ok(())
    }

    /// The batch of an entry: which running sequences are in it with how many tokens.
    fn batch(
        &mut self,
        decode: bool,
        events: &mut Vec<Event>,
    ) -> Result<(Vec<(usize, usize)>, Batch)> {
        let (mut chosen, mut budget, mut i) = (vec![], self.limits.tokens, 0);
        while i < self.running.len() {
            let s = &self.running[i];
            let left = s.tokens.len() - s.done;
            let count = left.min(if decode { 1 } else { self.chunk });
            if s.fills() == decode || (!decode && count > budget) {
                i += 1;
                continue;
            }
            if self.room(i, count, events)? {
                budget -= if decode { 0 } else { count };
                chosen.push((i, count));
                i += 1;
            }
        }
        let width = chosen.iter().map(|(i, _)| self.running[*i].table.pages().len()).max();
        let mut batch = Batch { width: width.unwrap_or(0), ..Batch::default() };
        for (i, count) in &chosen {
            self.running[*i].lay(*count, self.pages.rows(), &mut batch);
        }
        if batch.rows.is_empty() {
            // An entry gives at least one row; nobody reads this one.
            batch.rows.extend(batch.ends.first().map(|e| e - 1));
        }
        Ok((chosen, batch))
    }

    /// Makes room for the next tokens of running sequence `i`; where there is none, sequences behind it
    /// go back to waiting, in the end it does itself.
    fn room(&mut self, i: usize, count: usize, events: &mut Vec<Event>) -> Result<bool> {
        loop {
            let s = &mut self.running[i];
            let mut copies = vec![];
            let to = s.done + count;
            if self.pages.grow(&mut s.table, s.done, to, &mut |old, new| copies.push((old, new))) {
                // In this order: a page that was copied may be given out as another's copy.
                copies.into_iter().try_for_each(|(o, n)| self.decoder.copy_page(o, n))?;
                return Ok(true);
            }
            let alone = self.running.len() == 1;
            let Some(mut last) = self.running.pop() else { return Ok(false) };
            self.pages.release(std::mem::take(&mut last.table));
            last.done = 0;
            match alone {
                true => events.push(Event::End(last.id, End::Cache)),
                false => self.waiting.push_front(last),
            }
            if self.running.len() <= i {
                return Ok(false);
            }
        }
    }
}

impl Sequence {
    /// Adds its next tokens to a batch.
    fn lay(&self, count: usize, page: usize, batch: &mut Batch) {
        let (from, to) = (self.done, self.done + count);
        let start = batch.tokens.len();
        for at in from..to {
            batch.tokens.push(self.tokens[at] as i64);
            batch.positions.push(at as i64);
            let row = self.table.pages()[at / page] as usize * page + at % page;
            batch.slots.push(row as i64);
        }
        batch.lengths.push(to as i64);
        let pages = self.table.pages().iter().map(|p| *p as i64);
        batch.pages.extend(pages.chain(std::iter::repeat(0)).take(batch.width));
        batch.ends.push(batch.tokens.len() as i64);
        batch.rows.extend(self.rows(to).map(|at| (start + at - from) as i64));
    }

    /// The tokens up to `to` whose logits are wanted: those of the prompt that were not given yet, and the
    /// last one, where the next token is due.
    fn rows(&self, to: usize) -> std::ops::Range<usize> {
        let start = match self.request.prompt_logits && self.given < self.request.prompt.len() {
            true => self.given.max(self.done).min(to),
            false => to,
        };
        let due = to == self.tokens.len();
        (if due { start.min(to - 1) } else { start })..to
    }

    /// Chooses the next token.
    fn advance(
        &mut self,
        logits: &[f32],
        context: usize,
        events: &mut Vec<Event>,
    ) -> Result<Option<End>> {
        let token = self.sampler.next(logits, &self.tokens)?;
        Ok(self.take(token, context, events))
    }

    /// Goes on with a token.
    fn take(&mut self, token: u32, context: usize, events: &mut Vec<Event>) -> Option<End> {
        if !self.request.ignore_stop && self.request.settings.stop.contains(&token) {
            return Some(End::Stop(token));
        }
        self.tokens.push(token);
        events.push(Event::Token(self.id, token));
        let new = self.tokens.len() - self.request.prompt.len();
        if new >= self.request.max_new_tokens {
            Some(End::Length)
        } else if self.tokens.len() >= context {
            Some(End::Context)
        } else {
            None
        }
    }
}
