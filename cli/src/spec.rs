//! `--arg NAME=…` of the kernel verb: sizes, scalars, files, random buffers.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::sizes::bounds;

/// What one argument is.
#[derive(Clone, PartialEq, Debug)]
pub enum Spec {
    /// `7`, `0.5`: a size or scalar.
    Number(f64),
    /// `@x.npy`.
    File(PathBuf),
    /// `20x300`, `20x300:0..4`, `:0..4`: random contents, with a shape or range where given.
    Random {
        /// The shape.
        shape: Option<Vec<usize>>,
        /// Least and greatest value.
        range: Option<(f64, f64)>,
    },
}

/// Arguments by name.
#[derive(Clone, Debug, Default)]
pub struct Specs(pub HashMap<String, Spec>);

impl Specs {
    /// All of a command line; a repeated name is an error.
    pub fn new(list: &[(String, Spec)]) -> Result<Specs, crate::failure::Failure> {
        let mut all = HashMap::new();
        for (name, spec) in list {
            if all.insert(name.clone(), spec.clone()).is_some() {
                return Err(crate::failure::Failure::usage(format!("--arg {name} is given twice")));
            }
        }
        Ok(Specs(all))
    }

    /// The whole numbers among them, as sizes.
    pub fn sizes(&self) -> HashMap<String, i64> {
        let whole = |(n, s): (&String, &Spec)| match s {
            Spec::Number(v) if v.fract() == 0.0 && v.abs() < 9e15 => Some((n.clone(), *v as i64)),
            _ => None,
        };
        self.0.iter().filter_map(whole).collect()
    }

    /// Fails if a name is none of `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), crate::failure::Failure> {
        let mut wrong: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|n| !known.contains(n)).collect();
        wrong.sort_unstable();
        match wrong.first() {
            None => Ok(()),
            Some(n) => Err(crate::failure::Failure::usage(format!(
                "--arg {n}: there is no such argument; present: {}",
                known.join(", ")
            ))),
        }
    }
}

/// Reads `NAME=…`.
pub fn parse(text: &str) -> Result<(String, Spec), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(n, v)| !n.is_empty() && !v.is_empty())
        .ok_or_else(|| format!("needed NAME=VALUE, present `{text}`"))?;
    if let Some(file) = value.strip_prefix('@') {
        return Ok((name.into(), Spec::File(file.into())));
    }
    if let Ok(v) = value.parse::<f64>() {
        return Ok((name.into(), Spec::Number(v)));
    }
    let (shape, range) = match value.split_once(':') {
        Some((s, r)) => (s, Some(bounds(r)?)),
        None => (value, None),
    };
    let dims = shape.split('x').map(str::parse::<usize>).collect::<Result<Vec<_>, _>>();
    let shape = match (shape.is_empty(), dims) {
        (true, _) => None,
        (_, Ok(d)) => Some(d),
        _ => return Err(format!("needed a number, @FILE.npy or 2x3[:LO..HI], present `{value}`")),
    };
    Ok((name.into(), Spec::Random { shape, range }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        assert_eq!(parse("n=7"), Ok(("n".into(), Spec::Number(7.0))));
        assert_eq!(parse("x=@a.npy").unwrap().1, Spec::File("a.npy".into()));
        let random = |shape, range| Spec::Random { shape, range };
        assert_eq!(parse("x=2x3").unwrap().1, random(Some(vec![2, 3]), None));
        assert_eq!(parse("t=:0..4").unwrap().1, random(None, Some((0.0, 4.0))));
        for bad in ["n", "n=", "=1", "x=2x", "x=2x3:9", "x=axb"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
