//! Rotary positions as config.json states them: frequencies and factors.
//!
//! Two spellings are read: `rope_scaling` beside `rope_theta`, and `rope_parameters` with everything
//! inside; `type` is `rope_type`. Frequencies are rounded where the reference rounds, to f32.

use std::f64::consts::PI;

use crate::config::Config;
use crate::error::Result;

/// How queries and keys are turned.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    /// Frequency of each pair of features.
    pub inverse: Vec<f32>,
    /// Factor of cosines and sines.
    pub amplitude: f64,
    /// Frequencies that depend on the length of the sequence.
    pub dynamic: Option<Dynamic>,
    /// What YaRN multiplies the scores of latent attention by.
    pub score: f64,
}

/// Frequencies base^(−2i/d) whose base grows with the sequence beyond `length`:
/// base · (factor · n / length − factor + 1)^(d / (d − 2)).
#[derive(Clone, PartialEq, Debug)]
pub struct Dynamic {
    /// The base up to that length.
    pub base: f64,
    /// Growth.
    pub factor: f64,
    /// Length up to which nothing changes.
    pub length: usize,
}

/// Where frequencies come from: the fields of config.json.
struct Source<'a> {
    config: &'a Config,
    scaling: Option<Config>,
    theta: f64,
    size: usize,
}

/// Rotation of `head` features, or of the part that config.json states.
pub fn read(config: &Config, head: usize, theta: f64) -> Result<Rope> {
    let new = config.section("rope_parameters")?;
    let old = config.section("rope_scaling")?;
    if let (Some(_), Some(_)) = (&new, &old)
        && config.value("rope_parameters") != config.value("rope_scaling")
    {
        let e = config.wrong("rope_parameters", "`rope_scaling` says something else");
        return Err(e.needed("one of the two"));
    }
    let scaling = new.or(old);
    let field = |name: &str| -> Result<Option<f64>> {
        let inner = scaling.as_ref().map(|s| s.maybe_positive(name)).transpose()?.flatten();
        let outer = config.maybe_positive(name)?;
        Ok(inner.or(outer))
    };
    let theta = field("rope_theta")?.unwrap_or(theta);
    let part = field("partial_rotary_factor")?.unwrap_or(1.0);
    let size = (head as f64 * part) as usize;
    if part > 1.0 || size < 2 || !size.is_multiple_of(2) {
        let e = config.wrong("partial_rotary_factor", "the features do not make pairs");
        return Err(e.needed("an even number of features").present(format!("{size} of {head}")));
    }
    let kind = match &scaling {
        None => "default".to_string(),
        Some(s) => {
            let (new, old) = (s.word("rope_type")?, s.word("type")?);
            new.or(old).unwrap_or("default").to_string()
        }
    };
    let s = Source { config, scaling, theta, size };
    let plain = s.frequencies(theta);
    let mut rope = Rope { inverse: plain, amplitude: 1.0, dynamic: None, score: 1.0 };
    match kind.as_str() {
        "default" => {}
        "linear" => {
            let factor = s.scaling()?.positive("factor")? as f32;
            rope.inverse.iter_mut().for_each(|f| *f /= factor);
        }
        "dynamic" => {
            let factor = s.scaling()?.positive("factor")?;
            if size == 2 {
                return Err(s.config.unsupported("rope_scaling", "`dynamic` of one pair"));
            }
            let length = config.size("max_position_embeddings")?;
            rope.dynamic = Some(Dynamic { base: theta, factor, length });
        }
        "llama3" => s.llama3(&mut rope)?,
        "yarn" => s.yarn(&mut rope)?,
        other => {
            let known = "default, linear, dynamic, llama3, yarn";
            let e = config.unsupported("rope_type", "this kind of rotary positions");
            return Err(e.needed(known).present(crate::error::quoted(other)));
        }
    }
    if let Some(s) = &s.scaling
        && let Some(unknown) = s.unread().first()
    {
        return Err(s.unsupported(unknown, format!("`{kind}` has no such field here")));
    }
    Ok(rope)
}

impl Source<'_> {
    fn scaling(&self) -> Result<&Config> {
        // A kind is only known where there is a section.
        self.scaling.as_ref().ok_or_else(|| self.config.wrong("rope_scaling", "missing"))
    }

    /// base^(2i / size) for each pair.
    fn periods(&self, base: f64) -> impl Iterator<Item = f32> + '_ {
        let size = self.size;
        (0..size / 2).map(move |i| base.powf(((2 * i) as f32 / size as f32) as f64) as f32)
    }

    fn frequencies(&self, base: f64) -> Vec<f32> {
        self.periods(base).map(|p| 1.0 / p).collect()
    }

    /// The length the model was trained for before its context was extended.
    fn original(&self) -> Result<f64> {
        let inner = self.scaling()?.maybe_size("original_max_position_embeddings")?;
        let outer = self.config.maybe_size("original_max_position_embeddings")?;
        Ok(match inner.or(outer) {
            Some(n) => n,
            None => self.config.size("max_position_embeddings")?,
        } as f64)
    }

    fn llama3(&self, rope: &mut Rope) -> Result<()> {
        let s = self.scaling()?;
        let (factor, low, high) = (
            s.positive("factor")? as f32,
            s.positive("low_freq_factor")?,
            s.positive("high_freq_factor")?,
        );
        let length = self.original()?;
        if high <= low {
            let e = s.wrong("high_freq_factor", "it is not above `low_freq_factor`");
            return Err(e.needed(format!("above {low}")).present(high.to_string()));
        }
        for f in &mut rope.inverse {
            let wave = 2.0 * PI as f32 / *f;
            if wave > (length / low) as f32 {
                *f /= factor;
            } else if wave >= (length / high) as f32 {
                let smooth = (length as f32 / wave - low as f32) / (high - low) as f32;
                *f = (1.0 - smooth) * *f / factor + smooth * *f;
            }
        }
        Ok(())
    }

    fn yarn(&self, rope: &mut Rope) -> Result<()> {
        let s = self.scaling()?;
        let length = self.original()?;
        let factor = match s.maybe_positive("factor")? {
            Some(f) => f,
            None => self.config.size("max_position_embeddings")? as f64 / length,
        };
        let magnitude = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let given = (s.maybe_float("mscale")?, s.maybe_float("mscale_all_dim")?);
        let given = (given.0.filter(|m| *m != 0.0), given.1.filter(|m| *m != 0.0));
        rope.amplitude = match (s.maybe_positive("attention_factor")?, given) {
            (Some(a), _) => a,
            (None, (Some(m), Some(all))) => magnitude(m) / magnitude(all),
            (None, _) => magnitude(1.0),
        };
        rope.score = given.1.map_or(1.0, |m| magnitude(m) * magnitude(m));
        let fast = s.maybe_positive("beta_fast")?.unwrap_or(32.0);
        let slow = s.maybe_positive("beta_slow")?.unwrap_or(1.0);
        let size = self.size as f64;
        let turns = |n: f64| size * (length / (n * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (turns(fast), turns(slow));
        if s.flag("truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(size - 1.0));
        if !(low.is_finite() && high.is_finite()) {
            return Err(s.wrong("beta_fast", "the ramp of frequencies is not finite"));
        }
        if low == high {
            high += 0.001;
        }
        let pairs = self.periods(self.theta).enumerate();
        rope.inverse = pairs
            .map(|(i, period)| {
                let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                let keep = 1.0 - ramp;
                1.0 / (factor as f32 * period) * (1.0 - keep) + 1.0 / period * keep
            })
            .collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(json: &str, head: usize) -> Result<Rope> {
        read(&Config::parse("config.json", json.as_bytes())?, head, 10000.0)
    }

    /// Numbers of DeepSeek-V3: the ramp goes from pair 10 to pair 23, the scores get 1.36889².
    #[test]
    fn yarn_of_deepseek_v3() {
        let old = r#"{"max_position_embeddings": 163840, "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40,
            "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}}"#;
        let r = rope(old, 64).unwrap();
        let plain = |i: usize| 10000f64.powf(-(2.0 * i as f64) / 64.0);
        let ratio = |i: usize| r.inverse[i] as f64 / plain(i);
        assert!((ratio(10) - 1.0).abs() < 1e-6 && (ratio(23) * 40.0 - 1.0).abs() < 1e-6);
        assert!(ratio(11) < 0.999 && ratio(22) * 40.0 > 1.01);
        assert_eq!(r.amplitude, 1.0);
        assert!((r.score.sqrt() - 1.36889).abs() < 1e-5);
        let new = r#"{"max_position_embeddings": 163840, "rope_parameters": {"rope_type": "yarn", "factor": 40.0, "rope_theta": 10000.0,
            "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}}"#;
        assert_eq!(rope(new, 64).unwrap(), r);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (json, says) in [
            (r#"{"rope_scaling": {"type": "linear"}}"#, "`factor`: the field is missing"),
            (r#"{"rope_scaling": {"type": "linear", "factor": "4"}}"#, "a number above 0"),
            (r#"{"rope_scaling": {"type": "longrope", "factor": 4}}"#, "longrope"),
            (r#"{"rope_scaling": 3}"#, "an object"),
            (r#"{"rope_theta": 0}"#, "rope_theta"),
            (r#"{"rope_scaling": {"type": "linear", "factor": 2, "shift": 3}}"#, "shift"),
            (r#"{"partial_rotary_factor": 0.1}"#, "pairs"),
        ] {
            let e = rope(json, 8).unwrap_err().to_string();
            assert!(e.contains(says), "{json}: {e}");
        }
    }
}
