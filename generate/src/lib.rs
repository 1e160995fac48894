//! Text from language models, over [`silure_runtime`].
//!
//! * [`Tokenizer`], [`Stream`]: text to tokens and back, token by token.
//! * [`Template`]: conversations to prompts.
//! * [`Settings`], [`Sampler`]: which token comes next. [`StopStrings`]: where text ends.
//! * [`Pages`]: who owns which page of the cache. [`Scheduler`]: several sequences step by step over a
//!   [`Decoder`]; [`Model`] is the one that runs an engine.
//! * [`score`], [`compare`]: how well a model foretells a text, alone or beside another; [`feed`] only runs it.
//!
//! Engines, tokenizers, templates and settings are untrusted: what is wrong in them is an [`Error`].
//!
//! ```
//! use silure_generate::{Sampler, Settings};
//! let mut greedy = Sampler::new(&Settings::default()).unwrap();
//! assert_eq!(greedy.next(&[0.5, 2.0, 2.0], &[]).unwrap(), 1);
//! ```

mod assets;
mod error;
mod model;
mod pages;
mod sampler;
mod scheduler;
mod score;
mod settings;
mod stop;
mod template;
mod tokenizer;

pub use assets::Assets;
pub use error::{Error, Result};
pub use model::{Batch, Decoder, Draws, Limits, Model};
pub use pages::{Pages, Table};
pub use sampler::Sampler;
pub use scheduler::{End, Event, Request, Scheduler};
pub use score::{Comparison, Score, Windows, compare, feed, score};
pub use settings::Settings;
pub use stop::StopStrings;
pub use template::{Message, Template};
pub use tokenizer::{Stream, Tokenizer};
